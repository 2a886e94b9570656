"""The pages say what the code does."""

import re

import yaml

from image_pipeline.imaging.verdict import Reason
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


def test_links_of_the_readme_lead_somewhere(pytestconfig):
    text = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert links
    for link in links:
        assert (pytestconfig.rootpath / link).is_file(), link


def test_the_compose_file_starts_what_it_says(pytestconfig):
    root = pytestconfig.rootpath
    text = (root / "docker-compose.yml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    assert sorted(services) == [
        "code", "daemon", "edge", "init", "postgres", "s3", "valkey", "webserver",
    ]  # fmt: skip
    wanted = set(re.findall(r"\$\{(\w+)", text))
    offered = set(re.findall(r"^(\w+)=", (root / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert wanted == offered


def test_every_container_is_held_small_and_reached_from_this_machine_only(pytestconfig):
    compose = yaml.safe_load((pytestconfig.rootpath / "docker-compose.yml").read_text("utf-8"))
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert name == "init" or service["healthcheck"]["test"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
