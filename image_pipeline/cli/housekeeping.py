"""Commands that keep the bucket tidy, and that delete what a person wants deleted."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, check_source, settings_of


@click.group()
def maintenance() -> None:
    """Housekeeping: what nobody refers to, what lies in too dear a class, what is out of date."""


_DRY_RUN = click.option(
    "--dry-run/--no-dry-run", default=None,
    help="Only show what would be done. [default: as maintenance.dry_run]",
)  # fmt: skip
_PLAN = click.option("--plan", help="The id of a plan. [default: the newest]")


@maintenance.command("inventory")
@CONFIG
@JSON
def maintenance_inventory(config: Path | None, as_json: bool) -> None:
    """Write down every object of the bucket and who refers to it."""
    from image_pipeline.commands.maintenance import run_inventory

    sys.exit(run_inventory(settings_of(config), as_json))


@maintenance.command("plan")
@click.option(
    "--older-than-days", type=click.FloatRange(min=0),
    help="Can only make the grace periods of the settings longer.",
)  # fmt: skip
@click.option("--source", help="Only this source. [default: all]")
@click.option(
    "--max-objects", type=click.IntRange(min=1),
    help="At most so many; fewer than maintenance.max_objects.",
)  # fmt: skip
@click.option(
    "--archive", is_flag=True, help="Move to an archive class instead of the trash's own."
)
@CONFIG
@JSON
def maintenance_plan(
    older_than_days: float | None,
    source: str | None,
    max_objects: int | None,
    archive: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Plan what may be removed. Nothing is: look at the plan, then apply it.

    An object is in a plan if nobody refers to it in two inventories a day apart and it is old.

    \b
    image-pipeline maintenance plan
    image-pipeline maintenance apply --no-dry-run
    image-pipeline maintenance restore --plan orphans-20260301-030000-a1b2c3
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.maintenance import run_plan
    from image_pipeline.maintenance.planning import Scope

    settings = settings_of(config)
    check_source(settings, source)
    scope = Scope(older_than_days, source, max_objects, archive)
    sys.exit(run_plan(settings, scope, as_json))


@maintenance.command("apply")
@_PLAN
@click.option("--confirm", help="The id of a large or doubtful plan, which you have looked at.")
@_DRY_RUN
@CONFIG
@JSON
def maintenance_apply(
    plan: str | None, confirm: str | None, dry_run: bool | None, config: Path | None, as_json: bool
) -> None:
    """Move what a plan names to the trash, if nobody refers to it still. It can be undone."""
    from image_pipeline.commands.maintenance import run_apply

    sys.exit(run_apply(settings_of(config), plan, confirm, dry_run, as_json))


@maintenance.command("restore")
@click.option("--plan", required=True, help="The id of the plan to undo.")
@CONFIG
@JSON
def maintenance_restore(plan: str, config: Path | None, as_json: bool) -> None:
    """Put everything back that a plan removed. Nothing that is there now is overwritten."""
    from image_pipeline.commands.maintenance import run_restore

    sys.exit(run_restore(settings_of(config), plan, as_json))


@maintenance.command("purge")
@_DRY_RUN
@CONFIG
@JSON
def maintenance_purge(dry_run: bool | None, config: Path | None, as_json: bool) -> None:
    """Delete for good what has been in the trash for maintenance.cleanup.trash_days."""
    from image_pipeline.commands.maintenance import run_purge

    sys.exit(run_purge(settings_of(config), dry_run, as_json))


@maintenance.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@CONFIG
@JSON
def maintenance_list(limit: int, config: Path | None, as_json: bool) -> None:
    """The newest plans and what became of them."""
    from image_pipeline.commands.maintenance import run_list

    sys.exit(run_list(settings_of(config), limit, as_json))


@maintenance.command("show")
@click.option("--plan", required=True, help="The id of a plan.")
@CONFIG
@JSON
def maintenance_show(plan: str, config: Path | None, as_json: bool) -> None:
    """One plan: its entries, and what became of them."""
    from image_pipeline.commands.maintenance import run_show

    sys.exit(run_show(settings_of(config), plan, as_json))


@click.command()
@click.argument("key")
@click.option("--source", help="The source it is in, where several have the key.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@CONFIG
@JSON
def forget(key: str, source: str | None, yes: bool, config: Path | None, as_json: bool) -> None:
    """Delete an upload and everything made and known of it, for good: a person's request.

    What another upload shares stays. Ends with 3 while a batch has to publish for others first:
    run it again then. At the end it has looked at every place, and says so.

    \b
    image-pipeline forget uploads/photos/portrait.jpg
    image-pipeline forget uploads/photos/portrait.jpg --yes --json >proof.json
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.forget import run_forget

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_forget(settings, key, source, yes, as_json))


@maintenance.command("classes")
@click.option("--source", help="One source; all of them if not given.")
@click.option(
    "--older-than-days", type=click.FloatRange(min=0),
    help="Only what was not used for so long; can only make the rules' times longer.",
)  # fmt: skip
@click.option(
    "--max-objects", type=click.IntRange(min=1),
    help="At most so many moves; fewer than maintenance.max_objects.",
)  # fmt: skip
@click.option("--plan", help="Take this plan instead of making a new one.")
@click.option("--apply", is_flag=True, help="Move what the plan names. Without it nothing moves.")
@CONFIG
@JSON
def maintenance_classes(
    source: str | None,
    older_than_days: float | None,
    max_objects: int | None,
    plan: str | None,
    apply: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Which originals would move to colder storage, and what that saves.

    Takes an inventory first where the newest is more than a day old.

    \b
    image-pipeline maintenance classes
    image-pipeline maintenance classes --plan classes-20260301-050000-a1b2c3 --apply
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.classes import run_classes

    settings = settings_of(config)
    check_source(settings, source)
    if plan is not None and not apply:
        raise click.UsageError("--plan takes a plan that was shown before: add --apply")
    sys.exit(
        run_classes(
            settings,
            source=source,
            older_than_days=older_than_days,
            max_objects=max_objects,
            plan=plan,
            apply=apply,
            as_json=as_json,
        )
    )


@maintenance.command("lifecycle")
@click.option("--apply", is_flag=True, help="Write the rules. Without it they are only shown.")
@CONFIG
@JSON
def maintenance_lifecycle(apply: bool, config: Path | None, as_json: bool) -> None:
    """How the bucket's own lifecycle rules differ from those it should have.

    Rules of others are never changed.
    """
    from image_pipeline.commands.classes import run_lifecycle

    sys.exit(run_lifecycle(settings_of(config), apply=apply, as_json=as_json))


@maintenance.command("refresh")
@click.option("--source", help="One source; all of them if not given.")
@click.option("--outdated", is_flag=True, help="Also images made with an older recipe.")
@click.option("--max-objects", type=click.IntRange(min=1), help="At most so many images.")
@click.option("--apply", is_flag=True, help="Open their batches again; sensors ask for them.")
@CONFIG
@JSON
def maintenance_refresh(
    source: str | None,
    outdated: bool,
    max_objects: int | None,
    apply: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Which images have files that are missing, or outdated, and are to be rendered again."""
    from image_pipeline.commands.refreshing import run_refresh

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(
        run_refresh(
            settings,
            source=source,
            outdated=outdated,
            max_objects=max_objects,
            apply=apply,
            as_json=as_json,
        )
    )


@maintenance.command("history")
@click.option(
    "--older-than-days", type=click.FloatRange(min=0), help="Only longer than the settings say."
)
@click.option("--max-objects", type=click.IntRange(min=1), help="At most so many runs.")
@click.option("--apply", is_flag=True, help="Delete them. Without it they are only counted.")
@CONFIG
@JSON
def maintenance_history(
    older_than_days: float | None,
    max_objects: int | None,
    apply: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Dagster's old runs and finished partitions. The last success of each asset is kept."""
    from image_pipeline.commands.refreshing import run_history

    sys.exit(
        run_history(
            settings_of(config),
            config,
            older_than_days=older_than_days,
            max_objects=max_objects,
            apply=apply,
            as_json=as_json,
        )
    )
