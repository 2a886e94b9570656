"""The upload page in a real browser, before the real service, a real bucket and real batches."""

import hashlib
import re

import pytest

from image_pipeline.embedded import EmbeddedS3
from image_pipeline.imaging.verdict import Reason
from image_pipeline.settings import IntakeSource
from image_pipeline.store.cors import cors, put_cors, with_upload_rule

from .pages import COLOURS, contrast
from .uploading import Sent, bitmap, file, jpeg, opened

#: Files a request, and megabytes a file, that the sources of these tests take.
FILES, MEGABYTES = 4, 12

#: A bitmap of 11 MB: three parts of up to 5 MiB.
LARGE = bitmap(2000, 1780)

KEY = "a-key-of-the-shop"


@pytest.fixture(scope="module")
def site(chromium, s3, tmp_path_factory):
    """The service, with an anonymous source and one that needs a key."""
    limits = {"files": FILES, "megabytes": MEGABYTES}
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    sources = {
        "photos": IntakeSource(anonymous=True, **limits),
        "shop": IntakeSource(keys={"tests": digest}, **limits),
    }
    with opened(s3, tmp_path_factory.mktemp("site"), sources) as running:
        yield running


@pytest.fixture(scope="module")
def strict_site(chromium, tmp_path_factory):
    """Before a bucket that answers pages of other origins only by its CORS configuration."""
    data = tmp_path_factory.mktemp("strict-s3")
    sources = {"photos": IntakeSource(anonymous=True)}
    with (
        EmbeddedS3(data, services=("s3", "iam", "sts"), check_access=True) as server,
        opened(server, tmp_path_factory.mktemp("strict-site"), sources) as running,
    ):
        yield running


@pytest.fixture
def upload_page(visit, site, tmp_path):
    """Open the page; ``page.sent`` are the requests that it makes."""

    def open_page(path="/", at=site, **options):
        sent = Sent()
        before = options.pop("before", lambda context: None)

        def prepare(context):
            context.on("request", sent.see)
            before(context)

        page = visit(f"{at.url}{path}", before=prepare, **options)
        page.sent = sent
        page.folder = tmp_path
        return page

    return open_page


def choose(page, *files):
    page.locator("#limits:not(:empty)").wait_for()
    # From a disk: playwright takes seconds to hand over large ones.
    if any(len(one["buffer"]) > 1_000_000 for one in files):
        for one in files:
            (page.folder / one["name"]).write_bytes(one["buffer"])
        files = [page.folder / one["name"] for one in files]
    page.locator("#picker").set_input_files(list(files))


def card(page, name):
    return page.locator(".card").filter(has=page.get_by_text(name, exact=True))


def wait_for(page, name, state):
    """The card of a file, as soon as it is in that state."""
    card(page, name).and_(page.locator(f"[data-state={state}]")).wait_for(timeout=30_000)
    return card(page, name)


def send(page):
    page.get_by_role("button", name=re.compile("^Upload ")).click()


def throttle(page, bytes_per_second):
    """A phone far from its mast, which sends so much; back to normal with what is returned."""
    network = {"latency": 150, "downloadThroughput": 400_000, "uploadThroughput": bytes_per_second}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", {"offline": False, **network})
    free = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    return lambda: session.send("Network.emulateNetworkConditions", {"offline": False, **free})


def focused(page):
    return page.evaluate(
        "() => document.activeElement.getAttribute('aria-label') || document.activeElement.id"
        " || document.activeElement.textContent.trim()"
    )


#: Counts requests that carry bytes, and how many of them there were at a time.
COUNTING = """
  window.most = 0;
  let live = 0;
  const send = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (body) {
    live += 1;
    window.most = Math.max(window.most, live);
    this.addEventListener("loadend", () => { live -= 1; });
    send.call(this, body);
  };
"""


def test_from_choosing_to_the_published_picture(upload_page, site):
    page = upload_page(before=lambda context: context.add_init_script(COUNTING))
    choose(
        page,
        file("lake.jpg", jpeg(11)),
        file("large.bmp", LARGE, "image/bmp"),
        file("not really.jpg", b"no picture at all"),
    )
    for name in ("lake.jpg", "large.bmp"):
        wait_for(page, name, "ready").locator("canvas").wait_for()
    assert page.locator("#chosen").text_content() == "3 files, 10.8 MB"
    assert page.sent.requests == []

    send(page)
    for name in ("lake.jpg", "large.bmp", "not really.jpg"):
        wait_for(page, name, "waiting")
    assert sorted(page.sent.parts()) == [1, 2, 3]
    assert page.sent.whole() == 2
    assert page.evaluate("most") == 3
    # Bytes never pass through the service.
    assert {
        one.url.startswith(site.url)
        for one in page.sent.requests
        if one.method == "PUT" or "multipart/form-data" in one.headers.get("content-type", "")
    } == {False}

    boxes = """() => [...document.querySelectorAll(".frame")].map((one) =>
      JSON.stringify(one.getBoundingClientRect()))"""
    before = page.evaluate(boxes)
    site.run_batches()
    for name in ("lake.jpg", "large.bmp"):
        image = wait_for(page, name, "published").locator("picture img")
        image.wait_for()
        shown = image.evaluate(
            "(image) => ({url: image.currentSrc, width: image.naturalWidth, alt: image.alt})"
        )
        assert shown["url"].startswith(f"{site.tools.bucket.url}/variants/")
        assert re.search(r"/small-\d+x\d+\.[0-9a-f]+\.webp$", shown["url"])
        assert shown["width"] > 0
        assert shown["alt"] == name
    refused = wait_for(page, "not really.jpg", "rejected")
    assert refused.locator(".words").text_content() == (
        "The file is not a picture, whatever its name says."
    )
    assert page.locator("#total-words").text_content() == "3 files sent: 2 published, 1 rejected"
    # The files of the pipeline stay where they are: only the card goes.
    refused.get_by_role("button", name="Dismiss: not really.jpg").click()
    assert page.locator(".card").count() == 2
    # The preview goes when the picture has come.
    page.wait_for_function("() => !document.querySelector('[data-state=published] canvas')")
    assert page.evaluate("violations") == []
    # Nothing moves when a picture takes the place of its preview.
    assert page.evaluate(boxes) == before[:2]


def test_a_slow_connection_is_told_about_and_gets_there(upload_page):
    page = upload_page()
    throttle(page, 200_000)
    choose(page, file("slow.bmp", bitmap(1000, 500), "image/bmp"), file("small.jpg", jpeg(12)))
    page.evaluate(
        """() => {
          window.shares = [];
          window.words = new Set();
          const look = () => {
            window.shares.push(document.getElementById("total-bar").value);
            window.words.add(document.getElementById("total-words").textContent);
          };
          new MutationObserver(look).observe(document.getElementById("total"), {
            subtree: true, attributes: true, childList: true, characterData: true });
        }"""
    )
    send(page)
    for name in ("slow.bmp", "small.jpg"):
        wait_for(page, name, "waiting")
    shares = page.evaluate("shares")
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 1}) >= 5
    words = page.evaluate("[...words]")
    assert any(re.search(r"of 1\.\d MB, about \d+ s left", one) for one in words)
    assert page.locator("#total-words").text_content() == "2 files sent: 2 waiting"


def test_a_reload_goes_on_where_it_was(upload_page, site):
    page = upload_page()
    hurry = throttle(page, 2_000_000)
    choose(page, file("long.bmp", bitmap(1999, 1780), "image/bmp"), file("short.jpg", jpeg(13)))
    done = []
    page.on(
        "requestfinished",
        lambda request: done.append(request) if request.method == "PUT" else None,
    )
    send(page)
    wait_for(page, "short.jpg", "waiting")
    while not done:
        page.wait_for_timeout(50)
    first = Sent(list(done)).parts()
    before = len(page.sent.requests)
    page.reload()
    hurry()
    wait_for(page, "long.bmp", "waiting")
    wait_for(page, "short.jpg", "waiting")

    after = Sent(page.sent.requests[before:])
    assert 0 < len(first) < 3
    assert sorted(set(first) | set(after.parts())) == [1, 2, 3]
    # A part that ended in the moment of the reload may be there without our having been told.
    assert not set(first) & set(after.parts())
    assert after.whole() == 0
    assert after.asked() == []

    site.run_batches()
    for name in ("long.bmp", "short.jpg"):
        wait_for(page, name, "published").locator("picture img").wait_for()
    page.complaints.clear()
    # What has ended is not shown again.
    page.reload()
    page.locator("#limits:not(:empty)").wait_for()
    assert page.locator(".card").count() == 0


def test_a_second_tab_leaves_an_upload_to_the_first(upload_page, site):
    page = upload_page()
    throttle(page, 500_000)
    choose(page, file("mine.bmp", bitmap(1000, 500), "image/bmp"))
    send(page)
    wait_for(page, "mine.bmp", "sending")
    other = page.context.new_page()
    other.goto(site.url)
    wanted = "async () => (await navigator.locks.query()).pending.length === %d"
    other.wait_for_function(wanted % 1)
    wait_for(page, "mine.bmp", "waiting")
    other.wait_for_function(wanted % 0)
    assert other.locator(".card").count() == 0
    assert page.sent.whole() == 1


def test_what_cannot_be_sent_is_refused_before_anything_is(upload_page):
    page = upload_page()
    choose(
        page,
        file("note.txt", b"text", "text/plain"),
        file("empty.jpg", b""),
        file("huge.bmp", b"BM".ljust(MEGABYTES * 1_000_000 + 1), "image/bmp"),
    )
    choose(page, file("phone.heic", b"unknown to the system", ""))
    for name, words in {
        "note.txt": "Only JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF, BMP can be sent.",
        "empty.jpg": "The file is empty.",
        "huge.bmp": "The file has 12 MB; 12 MB are allowed.",
    }.items():
        assert wait_for(page, name, "refused").locator(".words").text_content() == words
    wait_for(page, "phone.heic", "ready")
    assert page.locator("#send").text_content() == "Upload 1 file"
    assert page.sent.requests == []


def test_no_more_are_taken_than_may_be_sent_at_a_time(upload_page):
    page = upload_page()
    data = jpeg(14)
    choose(page, *(file(f"{number}.jpg", data) for number in range(FILES + 2)))
    assert page.locator("[data-state=ready]").count() == FILES
    assert page.locator("#notice").text_content() == (
        "4 files can be sent at a time: 2 files of 6 were left out."
        " Upload these first, then choose the others."
    )
    choose(page, file("9.jpg", data))
    assert page.locator("[data-state=ready]").count() == FILES
    assert page.sent.requests == []
    card(page, "0.jpg").get_by_role("button", name="Remove").click()
    choose(page, file("9.jpg", data))
    wait_for(page, "9.jpg", "ready")
    assert page.locator("#notice").is_hidden()


def test_previews_are_drawn_small_and_let_go(upload_page):
    page = upload_page(
        before=lambda context: context.add_init_script(
            """
            window.live = 0; window.most = 0; window.made = 0;
            const make = URL.createObjectURL, revoke = URL.revokeObjectURL;
            URL.createObjectURL = (blob) => {
              window.made += 1; window.live += 1; window.most = Math.max(most, live);
              return make.call(URL, blob);
            };
            URL.revokeObjectURL = (url) => { window.live -= 1; revoke.call(URL, url); };
            """
        )
    )
    choose(
        page,
        *(file(f"{number}.jpg", jpeg(number)) for number in (1, 2, 3)),
        file("broken.jpg", b"no picture"),
    )
    page.wait_for_function("() => made === 4 && live === 0")
    assert page.evaluate("most") <= 2
    assert page.locator("canvas").count() == 3
    assert page.locator("canvas").first.evaluate("(one) => [one.width, one.height]") == [480, 360]
    assert card(page, "broken.jpg").locator(".stand-in").text_content() == "JPEG"


def test_files_are_dropped_anywhere(upload_page):
    page = upload_page()
    page.locator("#limits:not(:empty)").wait_for()
    for kind in ("dragenter", "dragover", "drop"):
        page.evaluate(
            """(kind) => {
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File(["BM"], "dropped.bmp", {type: "image/bmp"}));
              const options = {dataTransfer, bubbles: true, cancelable: true};
              window.kept = !document.body.dispatchEvent(new DragEvent(kind, options));
            }""",
            kind,
        )
        over = page.locator("#drop.over").count()
        assert over == (kind != "drop")
    # The browser does not open the file instead of the page.
    assert page.evaluate("kept")
    wait_for(page, "dropped.bmp", "ready")


def test_all_of_it_works_with_keys_alone(upload_page):
    page = upload_page()
    # From here on no dialog of the system opens: what is expected later could come too late.
    page.on("filechooser", lambda chooser: None)
    page.locator("#limits:not(:empty)").wait_for()
    for stop in ("source", "picker"):
        page.keyboard.press("Tab")
        assert focused(page) == stop
    assert page.evaluate(
        "() => getComputedStyle(document.getElementById('drop')).outlineWidth"
    ) == ("3px")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(
        [file("one.jpg", jpeg(15)), file("two.jpg", jpeg(16)), file("no.txt", b"x", "text/plain")]
    )
    wait_for(page, "two.jpg", "ready")
    stops = []
    for _ in range(5):
        page.keyboard.press("Tab")
        stops.append(focused(page))
        assert page.evaluate("() => document.activeElement.matches(':focus-visible')")
    assert stops == ["send", "clear", "Remove: one.jpg", "Remove: two.jpg", "Remove: no.txt"]
    page.keyboard.press("Enter")
    assert focused(page) == "Remove: two.jpg"
    page.keyboard.press("Enter")
    assert focused(page) == "Remove: one.jpg"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert focused(page) == "send"
    page.keyboard.press("Enter")
    assert focused(page) == "files-title"
    wait_for(page, "one.jpg", "waiting")
    assert page.sent.asked() == [["one.jpg"]]


def test_a_screen_reader_is_told_what_happens(upload_page):
    page = upload_page()
    page.evaluate(
        """() => {
          window.told = [];
          const announcer = document.getElementById("announcer");
          new MutationObserver(() => told.push(announcer.textContent)).observe(
            announcer, {childList: true});
        }"""
    )
    announcer = page.get_by_role("status")
    assert announcer.get_attribute("aria-live") == "polite"
    choose(page, file("one.jpg", jpeg(17)), file("no.txt", b"x", "text/plain"))
    page.wait_for_function("() => told.length === 1")
    send(page)
    wait_for(page, "one.jpg", "waiting")
    page.wait_for_function("() => told.length === 2")
    assert page.evaluate("told") == [
        "1 file added, 1 cannot be sent.",
        "Uploading 1 file. All files are sent.",
    ]


def test_a_source_with_a_key_asks_for_it(upload_page):
    page = upload_page("/?source=shop")
    field = page.get_by_label("API key")
    field.wait_for()
    assert focused(page) == "key"
    assert page.get_by_role("alert").text_content() == "Who uploads to shop needs an API key."
    field.fill("another-key")
    field.press("Enter")
    page.locator("#key[aria-invalid=true]").wait_for()
    assert page.get_by_role("alert").text_content() == (
        "This key does not open shop. Check it, or ask for another one."
    )
    field.fill(KEY)
    field.press("Enter")
    page.locator("#limits:not(:empty)").wait_for()
    choose(page, file("mug.jpg", jpeg(18)))
    wait_for(page, "mug.jpg", "ready")
    assert page.locator("#notice").is_hidden()
    send(page)
    wait_for(page, "mug.jpg", "waiting")
    # Not longer than the tab, and in no address.
    assert page.evaluate("() => JSON.stringify(localStorage)") == "{}"
    assert KEY not in "".join(one.url for one in page.sent.requests)
    page.complaints.clear()


def test_requests_that_break_off_are_made_again(upload_page):
    failures = {"POST": 2, "PUT": 2}

    def break_off(route):
        method = route.request.method
        if failures.get(method):
            failures[method] -= 1
            if failures[method]:
                route.abort("connectionreset")
            else:
                route.fulfill(status=503, headers={"Access-Control-Allow-Origin": "*"})
        else:
            route.continue_()

    page = upload_page(before=lambda context: context.route(re.compile("/site-"), break_off))
    choose(page, file("large.bmp", LARGE, "image/bmp"), file("small.jpg", jpeg(19)))
    send(page)
    wait_for(page, "large.bmp", "waiting")
    wait_for(page, "small.jpg", "waiting")
    assert failures == {"POST": 0, "PUT": 0}
    assert len(page.sent.parts()) == 3 + 2
    assert page.sent.whole() == 1 + 2
    assert len(page.sent.asked()) == 1
    page.complaints.clear()


def test_a_busy_service_is_asked_again_when_it_says(upload_page):
    answers = [{"status": 429, "headers": {"Retry-After": "20"}, "json": {"error": {}}}]

    def prepare(context):
        context.clock.install()
        context.route(
            "**/uploads",
            lambda route: route.fulfill(**answers.pop()) if answers else route.continue_(),
        )

    page = upload_page(before=prepare)
    choose(page, file("patient.jpg", jpeg(25)))
    with page.expect_response("**/uploads"):
        send(page)
    page.evaluate("() => fetch('health')")
    # Of its own accord the page would ask again after a second.
    page.clock.fast_forward(10_000)
    page.evaluate("() => fetch('health')")
    assert page.sent.asked() == [["patient.jpg"]]
    page.clock.fast_forward(10_000)
    wait_for(page, "patient.jpg", "waiting")
    assert page.sent.asked() == [["patient.jpg"]] * 2
    page.complaints.clear()


def test_a_permission_that_ran_out_is_asked_for_anew(upload_page):
    refused = {"POST": 1, "PUT": 1}

    def refuse(route):
        method = route.request.method
        if refused.get(method):
            refused[method] -= 1
            route.fulfill(
                status=403,
                headers={"Access-Control-Allow-Origin": "*"},
                body="<Error><Code>AccessDenied</Code></Error>",
            )
        else:
            route.continue_()

    page = upload_page(before=lambda context: context.route(re.compile("/site-"), refuse))
    choose(page, file("late.bmp", LARGE, "image/bmp"), file("late.jpg", jpeg(26)))
    send(page)
    wait_for(page, "late.bmp", "waiting")
    wait_for(page, "late.jpg", "waiting")
    # A part gets another address; a file that is sent whole, another permission.
    assert page.sent.asked() == [["late.bmp", "late.jpg"], ["late.jpg"]]
    assert len(page.sent.parts()) == 3 + 1
    page.complaints.clear()


def test_one_file_is_cancelled_and_sent_after_all(upload_page):
    page = upload_page()
    hurry = throttle(page, 100_000)
    choose(page, file("large.bmp", LARGE, "image/bmp"), file("small.jpg", jpeg(20)))
    send(page)
    bar = wait_for(page, "large.bmp", "sending").locator("progress")
    bar.wait_for()
    assert bar.get_attribute("aria-label") == "large.bmp, sent"
    with page.expect_request(lambda request: request.method == "DELETE"):
        card(page, "large.bmp").get_by_role("button", name="Cancel").click()
    wait_for(page, "large.bmp", "cancelled")
    assert focused(page) == "Try again: large.bmp"
    wait_for(page, "small.jpg", "waiting")
    hurry()
    page.keyboard.press("Enter")
    wait_for(page, "large.bmp", "waiting")
    assert page.sent.asked() == [["large.bmp", "small.jpg"], ["large.bmp"]]
    page.complaints.clear()


@pytest.mark.parametrize("can_remember", [True, False])
def test_leaving_asks_only_where_something_would_be_lost(upload_page, can_remember):
    def forget(context):
        context.add_init_script("Object.defineProperty(window, 'indexedDB', {value: undefined});")

    page = upload_page(before=(lambda context: None) if can_remember else forget)
    throttle(page, 500_000)
    choose(page, file("left.bmp", bitmap(1000, 500), "image/bmp"))
    send(page)
    wait_for(page, "left.bmp", "sending")
    page.locator(".card progress[value]:not([value='0'])").wait_for()
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.evaluate("() => setTimeout(() => location.replace('about:blank'))")
    if can_remember:
        page.wait_for_url("about:blank")
    else:
        wait_for(page, "left.bmp", "waiting")
    assert asked == ([] if can_remember else ["beforeunload"])


def test_the_bucket_lets_pages_in_by_its_rule(upload_page, strict_site):
    bucket = strict_site.tools.bucket
    page = upload_page(at=strict_site)
    choose(page, file("large.bmp", LARGE, "image/bmp"), file("small.jpg", jpeg(40)))
    with page.expect_event("requestfailed"):
        send(page)
    put_cors(
        bucket.client,
        bucket.name,
        with_upload_rule(cors(bucket.client, bucket.name), [strict_site.url]),
    )
    wait_for(page, "large.bmp", "waiting")
    wait_for(page, "small.jpg", "waiting")
    assert {one.size for one in bucket.list("uploads/photos/")} == {len(LARGE), len(jpeg(40))}
    page.complaints.clear()


@pytest.mark.parametrize("trouble", ["no stream", "a proxy that holds it back"])
def test_without_a_stream_the_page_asks(upload_page, site, trouble):
    def break_stream(route):
        if trouble == "no stream":
            route.fulfill(status=502)

    def prepare(context):
        context.clock.install()
        context.route("**/uploads/events*", break_stream)

    page = upload_page(before=prepare)
    name = f"{trouble}.jpg"
    choose(page, file(name, jpeg(21 if trouble == "no stream" else 24)))
    with page.expect_request("**/uploads/events*"):
        send(page)
    wait_for(page, name, "waiting")
    site.run_batches()
    if trouble != "no stream":
        # It is waited for ten seconds.
        page.clock.fast_forward(10_000)
    wait_for(page, name, "published").locator("picture img").wait_for()
    page.complaints.clear()


def test_hostile_names_are_only_text(upload_page):
    page = upload_page()
    names = ["<img src=x onerror='window.ran=1'>.jpg", "\u202egpj.exe.jpg"]
    choose(page, *(file(name, jpeg(22 + at)) for at, name in enumerate(names)))
    shown = page.locator(".name").all_text_contents()
    assert shown == [names[0], "gpj.exe.jpg"]
    assert page.evaluate("window.ran") is None


def test_markup_that_got_in_could_not_run(upload_page):
    page = upload_page()
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("() => { document.body.innerHTML = '<img src=x onerror=alert(1)>'; }")
    page.evaluate(
        "() => fetch('https://elsewhere.example/').catch(() => {})",
    )
    page.wait_for_function(
        "() => violations.some((one) => one.startsWith('connect-src https://elsewhere.example'))"
    )
    page.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_and_controls_have_names(upload_page, scheme):
    page = upload_page("/?source=photos", color_scheme=scheme)
    choose(
        page,
        *(file(f"{number}.jpg", jpeg(30)) for number in range(FILES + 1)),
        file("no.txt", b"x", "text/plain"),
    )
    page.locator("#notice").wait_for()
    send(page)
    page.locator("[data-state=waiting]").nth(FILES - 1).wait_for()
    choose(page, file("next.jpg", jpeg(31)))
    page.evaluate("() => { document.getElementById('key-part').hidden = false; }")
    for state, badge in (("failed", "failed"), ("published", "accepted")):
        page.evaluate(
            """([state, badge]) => {
              const card = document.querySelector(".card").cloneNode(true);
              card.dataset.state = state;
              card.querySelector(".badge").className = `badge ${badge}`;
              document.getElementById("files").append(card);
            }""",
            [state, badge],
        )
    found = page.evaluate(COLOURS)
    assert len(found) > 20
    for one in found:
        # WCAG 2.2, 1.4.3 (AA).
        assert contrast(one["ink"], one["ground"]) >= (3 if one["large"] else 4.5), one
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, progress, [role=status]")]
          .filter((one) => one.role !== "status" && one.id !== "announcer")
          .filter((one) => !(one.labels?.length || one.getAttribute("aria-label")
            || one.textContent.trim()))
          .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    levels = page.evaluate(
        "() => [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.nodeName[1]))"
    )
    assert levels[:2] == [1, 2]
    assert set(levels[2:]) == {3}
    assert page.evaluate("() => document.documentElement.lang") == "en"
    sizes = page.evaluate(
        """() => [...document.querySelectorAll("button, select, .button")]
          .filter((one) => one.checkVisibility())
          .map((one) => one.getBoundingClientRect()).map(({width, height}) => [width, height])"""
    )
    # WCAG 2.2, 2.5.8.
    assert min(min(one) for one in sizes) >= 24


def test_the_page_fits_a_phone(upload_page):
    page = upload_page(width=320, height=640)
    choose(page, file(f"{'name' * 40}.jpg", jpeg(32)), file("2.jpg", jpeg(33)))
    wait_for(page, "2.jpg", "ready")
    name = page.locator(".name").first
    assert name.evaluate("(one) => one.scrollWidth <= one.clientWidth")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 320


def test_every_reason_has_its_words(upload_page):
    page = upload_page()
    known = page.evaluate(
        """async () => {
          const script = document.querySelector("script[src]").src;
          return (await import(script.replace("upload.js", "wording.js"))).REASONS;
        }"""
    )
    assert set(known) == {reason.value for reason in Reason}
    assert all(words.endswith(".") for words in known.values())
