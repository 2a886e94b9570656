"""The pages say what the code does."""

import re

import yaml

from image_pipeline.imaging.verdict import Reason
from image_pipeline.run_size import size_of_run
from image_pipeline.settings import Settings


def test_every_reason_code_is_explained(pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "verdicts.md").read_text(encoding="utf-8")
    for reason in Reason:
        assert f"| `{reason}` | {reason.meaning} |" in page


def field_paths(model):
    """The path of every field, however deep."""
    for name, field in model.model_fields.items():
        yield (name,)
        if hasattr(field.annotation, "model_fields"):
            yield from ((name, *path) for path in field_paths(field.annotation))


def test_every_part_of_the_settings_has_its_fields_named(pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "settings.md").read_text(encoding="utf-8")
    for path in field_paths(Settings):
        assert re.search(rf"\b{path[-1]}\b", page), ".".join(path)


def pages(root):
    return [root / "README.md", *root.glob("docs/*.md"), *root.glob("deploy/**/*.md")]


def test_links_between_the_pages_lead_somewhere(pytestconfig):
    for page in pages(pytestconfig.rootpath):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!http|#|data:)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_leads_to_every_page(pytestconfig):
    root = pytestconfig.rootpath
    text = "".join(page.read_text(encoding="utf-8") for page in pages(root))
    for page in root.glob("docs/*.md"):
        assert re.search(rf"\((docs/)?{re.escape(page.name)}[)#]", text), page.name


def test_the_help_of_make_names_every_target(pytestconfig):
    text = (pytestconfig.rootpath / "Makefile").read_text(encoding="utf-8")
    named = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    documented = re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE)
    assert sorted(named) == sorted(documented)


def test_the_compose_file_starts_what_it_says(pytestconfig):
    root = pytestconfig.rootpath
    text = (root / "docker-compose.yml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    assert sorted(services) == [
        "code", "daemon", "edge", "init", "postgres", "s3", "valkey", "viewer", "webserver",
    ]  # fmt: skip
    wanted = set(re.findall(r"\$\{(\w+)", text))
    offered = set(re.findall(r"^(\w+)=", (root / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert wanted == offered


def megabytes(text):
    """10^6 bytes of a size as Docker writes it, or the default of a variable's."""
    number, unit = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)([mg])\}?", text).groups()
    return int(number) * {"m": 2**20, "g": 2**30}[unit] / 1e6


def test_every_container_is_held_small_and_reached_from_this_machine_only(pytestconfig):
    compose = yaml.safe_load((pytestconfig.rootpath / "docker-compose.yml").read_text("utf-8"))
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["driver"] == "local", name
        limits = service["deploy"]["resources"]["limits"]
        assert limits["pids"], name
        assert name == "init" or service["healthcheck"]["test"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        # A tmpfs is memory of its container.
        sizes = [re.search(r"size=(\w+)", one)[1] for one in service["tmpfs"]]
        assert sum(map(megabytes, sizes)) <= megabytes(limits["memory"]) / 2, name


def test_the_code_servers_memory_holds_the_runs_that_may_go_at_a_time(pytestconfig):
    root = pytestconfig.rootpath
    service = yaml.safe_load((root / "docker-compose.yml").read_text("utf-8"))["services"]["code"]
    default = re.search(r":-(\d+)", service["environment"]["IMAGE_PIPELINE_WORKERS__PROCESSES"])[1]
    example = dict(
        re.findall(
            r"^(WORKERS|CODE_MEMORY)=(\w+)", (root / ".env.example").read_text(), re.MULTILINE
        )
    )
    assert example["WORKERS"] == default
    settings = yaml.safe_load((root / "pipeline.yaml").read_text("utf-8"))
    memory = settings["workers"]["memory_megabytes"]
    size = size_of_run(Settings(workers={"processes": int(default), "memory_megabytes": memory}))
    instance = yaml.safe_load((root / "deploy" / "dagster.yaml").read_text("utf-8"))
    runs = instance["run_queue"]["max_concurrent_runs"]
    tmpfs = 272 * 2**20 / 1e6
    for limit in (service["deploy"]["resources"]["limits"]["memory"], example["CODE_MEMORY"]):
        # 218 MB were measured for the server alone, after some runs.
        assert megabytes(limit) >= runs * size.memory_megabytes + 300 + tmpfs
