"""Settings: defaults, the file over them, the environment over both, and clear errors."""

import pytest

from image_pipeline.settings import SettingsError, find_config, load_settings


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "pipeline.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_no_file_gives_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    recipe = settings.recipe_of("photos")
    assert [(size.width, size.height) for size in recipe.sizes.values()] == [
        (400, 400), (640, 480), (1024, 768), (1920, 1080), (2560, 1440),
    ]  # fmt: skip
    assert recipe.formats.names == ("avif", "webp", "jpeg")
    assert settings.catalog.url == f"sqlite:///{tmp_path}/.data/catalog.db"


def test_the_repository_file_says_what_the_defaults_say(write, pytestconfig, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = load_settings(pytestconfig.rootpath / "pipeline.yaml")
    assert ours.recipes == load_settings().recipes
    assert ours.batches == load_settings().batches
    assert ours.sources == load_settings().sources


def test_a_part_is_merged_over_its_defaults(write):
    settings = load_settings(write("batches: {max_images: 7}"))
    assert settings.batches.max_images == 7
    assert settings.batches.max_megabytes == 1000


def test_formats_that_are_named_replace_the_default_ones(write):
    settings = load_settings(write("recipes: {hero: {formats: {webp: }}}"))
    assert settings.recipes["hero"].formats.names == ("webp",)
    assert settings.recipes["web"].formats.names == ("avif", "webp", "jpeg")


def test_the_environment_wins_over_the_file(write, monkeypatch):
    monkeypatch.setenv("IMAGE_PIPELINE_BUCKET__NAME", "from-env")
    settings = load_settings(write("bucket: {name: from-file, region: eu-west-1}"))
    assert (settings.bucket.name, settings.bucket.region) == ("from-env", "eu-west-1")


def test_the_variable_names_the_file(write, monkeypatch):
    path = write("bucket: {name: elsewhere}")
    monkeypatch.setenv("IMAGE_PIPELINE_CONFIG", str(path))
    assert find_config() == path
    assert load_settings().bucket.name == "elsewhere"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "recipes: {web: {sizes: {small: {width: -3, height: 4}},"
            " formats: {avif: {speed: 11}}}}",
            ["recipes.web.sizes.small.width: ", "recipes.web.formats.avif.speed: "],
        ),
        ("buket: {name: photos}", ["buket: unknown field"]),
        ("sources: {a: {prefix: x/, recipe: b}}", ["sources.a.recipe: no recipe 'b' (web)"]),
        ("sources: {a: {prefix: x/}, b: {prefix: x/y/}}", ["sources.b.prefix: "]),
        ("sources: {a: {prefix: variants/}}", ["sources.a.prefix: lies inside"]),
        ("sources: {a: {prefix: uploads}}", ["sources.a.prefix: must end with '/'"]),
        ("bucket: {secret_access_key: x}", ["secrets come from the environment"]),
        ("catalog: {url: 'postgresql://u:pw@h/db'}", ["IMAGE_PIPELINE_CATALOG__URL"]),
        ("recipes: {web: {formats: {}}}", ["recipes.web: formats: name at least one"]),
        ("recipes: {web: {background: red}}", ["recipes.web.background: "]),
        ("- a list", ["must hold named parts"]),
        ("a: [", ["is not YAML"]),
    ],
)
def test_a_wrong_file_is_one_line_per_field(write, text, messages):
    path = write(text)
    with pytest.raises(SettingsError) as raised:
        load_settings(path)
    lines = str(raised.value).splitlines()
    for message in messages:
        assert any(line.startswith(f"{path}: ") and message in line for line in lines), lines


def test_a_password_in_the_file_is_not_repeated_in_the_error(write):
    with pytest.raises(SettingsError) as raised:
        load_settings(write("catalog: {url: 'postgresql://user:hunter2@host/db'}"))
    assert "hunter2" not in str(raised.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "nowhere.yaml")


def test_quality_offsets_follow_role_and_width():
    from image_pipeline.settings import Size

    formats = ("avif", "webp", "jpeg")
    thumbnail = Size(role="thumbnail", width=400, height=400)
    assert [thumbnail.offset(kind) for kind in formats] == [4, 4, 4]
    assert [Size(width=1919, height=100).offset(kind) for kind in formats] == [0, 0, 0]
    assert [Size(width=1920, height=100).offset(kind) for kind in formats] == [-5, -2, -7]
    chosen = Size(width=1920, height=100, quality_offset=2)
    assert [chosen.offset(kind) for kind in formats] == [2, 2, 2]


def test_an_empty_variable_takes_a_value_away(tmp_path, monkeypatch):
    """A compose file passes on what nobody set; AWS has no endpoint of its own."""
    path = tmp_path / "pipeline.yaml"
    path.write_text("bucket: {endpoint_url: embedded}\nredis: {url: embedded}")
    monkeypatch.setenv("IMAGE_PIPELINE_BUCKET__ENDPOINT_URL", "")
    monkeypatch.setenv("IMAGE_PIPELINE_REDIS__URL", "")
    settings = load_settings(path)
    assert settings.bucket.endpoint_url is None
    assert settings.redis.url is None
