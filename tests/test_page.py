"""The page of `samaf serve`, used in a browser: it hears, names, says "unknown", and shows and changes the library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import READ, WRITE, Service, write_tokens
from synth import tune, write

from samaf import Library

for name in ("fastapi", "httpx", "prometheus_client", "python_multipart", "uvicorn"):
    pytest.importorskip(name, reason=f"{name} is not installed; the extra serve has it")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

expect = playwright.expect
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SEEN_MS = 60_000  # a busy machine takes long

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three songs, and clips of 8 s."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "songs").mkdir()
    for seed, name in enumerate(("alder", "birch", "cedar")):
        write(folder / "songs" / f"{name}.flac", tune(30, seed=seed))
    rng = np.random.default_rng(0)
    clip = tune(30, seed=1)[9 * 16000 : 17 * 16000]
    noise = rng.standard_normal(len(clip)).astype(np.float32)
    write(folder / "noisy.wav", 0.6 * clip + 0.3 * np.std(clip) * noise)
    write(folder / "late.wav", np.concatenate([np.zeros(4 * 16000, np.float32), 0.6 * clip]))
    write(folder / "other.wav", tune(8, seed=96))
    write(folder / "new.wav", tune(12, seed=50))
    (folder / "text.wav").write_text("This is no audio at all. " * 100)
    write_tokens(folder)
    with Library(folder / "songs.samafdb", writable=True) as library:
        assert library.add(folder / "songs").added == 3
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """A service whose readers need a token."""
    made = Service("--db", folder / "songs.samafdb", "--tokens", folder / "tokens", workers=1)
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """What drives browsers."""
    with playwright.sync_playwright() as made:
        yield made


def is_wrong(said: Any, is_refused: bool) -> bool:
    """Whether the console tells of a mistake; a browser writes of each request that is refused there, too."""
    if is_refused and "the server responded with a status of 4" in said.text:
        return False
    return said.type in ("error", "warning")


@pytest.fixture
def opened(driver: Any, service: Service, program: Callable[[str], str]) -> Iterator[Open]:
    """`opened(token)` opens the page; nothing may go wrong on it, and it may ask no other host for anything."""
    wrong: list[str] = []
    browsers = []

    def open_page(
        token: str = READ, *, hears: Path | None = None, is_refused: bool = False, **options: Any
    ) -> Any:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        if hears is not None:
            arguments += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={hears}"]
            options["permissions"] = ["microphone"]
        browser = driver.chromium.launch(executable_path=program("chromium"), args=arguments)
        browsers.append(browser)
        context = browser.new_context(**{"viewport": DESK, **options})
        if token:
            context.add_init_script(f"sessionStorage.setItem('token', '{token}')")
        page = context.new_page()
        page.set_default_timeout(SEEN_MS)
        page.on("console", lambda said: is_wrong(said, is_refused) and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda sent: sent.url.startswith((service.url, "blob:", "data:")) or wrong.append(sent.url),
        )
        page.goto(service.url)
        if token:
            expect(page.locator("#stats")).to_contain_text("recordings", timeout=SEEN_MS)
        return page

    yield open_page
    for browser in browsers:
        browser.close()
    assert not wrong


def shows(page: Any, place: str, part: str | re.Pattern[str]) -> str:
    """What a place of the page reads, as soon as it has this part."""
    expect(page.locator(place)).to_contain_text(part, timeout=SEEN_MS)
    return page.inner_text(place)


def told(page: Any, part: str | re.Pattern[str]) -> str:
    """What the page says of what it does, as soon as that has this part."""
    return shows(page, "#told", part)


def counts(page: Any, what: str, n: int) -> None:
    """Wait until there are as many."""
    expect(page.locator(what)).to_have_count(n, timeout=SEEN_MS)


def serious(page: Any) -> list[str]:
    """What bars somebody from using the page."""
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}" for one in found if one["impact"] in ("serious", "critical")]


@contextmanager
def held(page: Any) -> Iterator[None]:
    """The button is held."""
    box = page.locator("#listen").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    told(page, "Listening")
    page.wait_for_timeout(500)  # longer than a tap
    yield
    page.mouse.up()


def test_what_the_microphone_hears_is_named_while_it_listens(folder: Path, opened: Open) -> None:
    page = opened(hears=folder / "noisy.wav")
    with held(page):
        assert told(page, "Still listening").startswith("birch. ")
        assert page.get_attribute("#listen", "aria-pressed") == "true"
        shows(page, "#answer", "birch")
    page.wait_for_selector("#listen[aria-pressed=false]")
    assert told(page, "birch").startswith("birch. Practically certain.")
    card = page.inner_text("#answer")
    assert "birch" in card and "Practically certain" in card and "as it was recorded" in card
    assert "birch" in page.inner_text("#heard")
    line = page.locator("#answer li", has=page.locator("h2", has_text="birch")).first.locator(".line")
    bars = [part.first.bounding_box() for part in (line.locator("i"), line)]
    at = (bars[0]["x"] - bars[1]["x"]) / bars[1]["width"]
    assert 7 / 30 < at < 18 / 30  # the fake microphone repeats a clip that lies 9 to 17 s in 30 s


def test_what_is_in_no_library_is_unknown(folder: Path, opened: Open) -> None:
    page = opened(hears=folder / "other.wav")
    page.focus("#listen")
    page.keyboard.press("Enter")
    told(page, "Nothing known so far")
    assert page.get_attribute("#listen", "aria-pressed") == "true"
    page.keyboard.press("Space")
    assert told(page, "Unknown") == "Unknown."
    assert page.inner_text("#answer h2") == "Unknown" and not page.is_visible("#heard")
    page.click("text=Show what comes nearest")
    page.wait_for_selector("#answer .verdict.weak")
    assert "Practically" not in page.inner_text("#answer .verdict")


def test_silence_is_waited_through(folder: Path, opened: Open) -> None:
    page = opened(hears=folder / "late.wav", is_refused=True)
    page.click("#listen")
    told(page, re.compile("Nothing to be heard|birch"))
    told(page, "birch. Practically certain. Still listening.")


def test_a_key_may_be_held_as_well(folder: Path, opened: Open) -> None:
    page = opened(hears=folder / "noisy.wav")
    page.focus("#listen")
    for _ in range(4):
        page.keyboard.down("Enter")  # after the first they are repetitions
        page.wait_for_timeout(150)
    told(page, "Listening")
    assert page.get_attribute("#listen", "aria-pressed") == "true"
    page.wait_for_timeout(1500)
    page.keyboard.up("Enter")
    assert page.get_attribute("#listen", "aria-pressed") == "false"
    told(page, "birch")


def test_stop_closes_the_microphone_whatever_the_service_does(folder: Path, opened: Open) -> None:
    page = opened(hears=folder / "noisy.wav")
    page.evaluate(
        """() => {
          const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (wanted) => window.heard = await open(wanted);
        }"""
    )
    page.route("**/v1/search*", lambda route: None)  # it never answers
    page.click("#listen")
    with page.expect_request("**/v1/search*"):
        told(page, "Listening")
    page.click("#stop")
    assert page.evaluate("window.heard.getTracks().map((one) => one.readyState)") == ["ended"]
    told(page, "Searching")
    page.click("#stop")
    told(page, "Stopped")
    assert not page.is_visible("#stop")


def test_a_file_takes_the_place_of_listening(folder: Path, opened: Open) -> None:
    page = opened(hears=folder / "other.wav")
    page.click("#listen")
    told(page, "Listening")
    page.set_input_files("#file", folder / "noisy.wav")
    told(page, "birch. Practically certain.")
    assert page.get_attribute("#listen", "aria-pressed") == "false"
    page.wait_for_timeout(1500)
    assert page.inner_text("#told") == "birch. Practically certain."


def test_the_microphone_is_taken_as_it_is(folder: Path, opened: Open) -> None:
    page = opened(hears=folder / "noisy.wav")
    page.evaluate(
        """() => {
          const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = (wanted) => { window.wanted = wanted; return open(wanted); };
        }"""
    )
    page.click("#listen")  # a tap: it goes on
    told(page, "Listening")
    wanted = page.evaluate("window.wanted.audio")
    assert [wanted[name] for name in ("echoCancellation", "noiseSuppression", "autoGainControl")] == [
        False
    ] * 3
    page.click("#stop")
    page.wait_for_selector("#listen[aria-pressed=false]")


def test_without_a_microphone_it_says_what_helps(opened: Open) -> None:
    page = opened()
    page.click("#listen")
    assert "microphone" in told(page, "icrophone ")
    page.wait_for_selector("#state.bad")
    assert page.get_attribute("#listen", "aria-pressed") == "false"


def test_a_file_is_named_and_a_bad_one_is_refused(folder: Path, opened: Open) -> None:
    page = opened(is_refused=True)
    page.set_input_files("#file", folder / "noisy.wav")
    page.wait_for_selector("#answer .verdict")
    card = page.inner_text("#answer")
    assert "birch" in card and "0:09.0 to 0:17.0" in card and "0:00.0 to 0:08.0" in card
    page.click("#answer summary")
    assert "one such answer in a thousand" in page.inner_text("#answer details")
    page.set_input_files("#file", folder / "other.wav")
    assert told(page, "Unknown")
    page.set_input_files("#file", folder / "text.wav")
    page.wait_for_selector("#state.bad")
    assert "text.wav" in page.inner_text("#told") and not page.inner_text("#answer")


def test_a_dropped_file_is_named(folder: Path, opened: Open) -> None:
    page = opened()
    page.evaluate(
        """async ([bytes]) => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([new Uint8Array(bytes)], "noisy.wav"));
          const event = (kind) => new DragEvent(kind, { dataTransfer: dropped, bubbles: true, cancelable: true });
          const deck = document.getElementById("deck");
          deck.dispatchEvent(event("dragenter"));
          if (!deck.classList.contains("over")) throw new Error("it does not show that it takes the file");
          deck.dispatchEvent(event("drop"));
          if (deck.classList.contains("over")) throw new Error("it still shows that it takes a file");
        }""",
        [list((folder / "noisy.wav").read_bytes())],
    )
    assert told(page, "birch")


def test_the_library_is_browsed_searched_and_changed(folder: Path, service: Service, opened: Open) -> None:
    page = opened("", is_refused=True)  # as whoever comes first
    page.wait_for_selector("#token-form:not([hidden])")
    assert "asks for a token" in page.inner_text("#token-told")
    assert not page.is_visible("#tracks li")
    page.fill("#token", "a token \u2603")
    page.keyboard.press("Enter")
    shows(page, "#token-told", "letters, digits")
    page.fill("#token", READ)
    page.keyboard.press("Enter")
    page.wait_for_selector("#tracks li")
    assert page.locator("#tracks li").count() == 3 and not page.is_visible("#add")
    assert page.locator("#tracks button").count() == 0
    page.fill("#words", "cedar")
    counts(page, "#tracks li", 1)
    page.fill("#words", "nothing of the kind")
    shows(page, "#tracks-told", "No recording")
    page.fill("#words", "")
    page.click("#token-button")
    page.fill("#token", WRITE)
    page.click("text=Use it")
    page.wait_for_selector("#add:not([hidden])")
    page.set_input_files("#new", [folder / "text.wav", folder / "new.wav"])
    shows(page, "#added", re.compile("new.wav *added"))
    assert "not audio" in page.inner_text("#added .bad")
    counts(page, "#tracks li", 4)
    shows(page, "#stats", "4 recordings")
    page.set_input_files("#file", folder / "new.wav")
    assert told(page, "new. Practically certain")
    button = page.locator("#tracks li", has_text="new").locator("button")
    button.dblclick()
    for _ in range(3):
        page.keyboard.down("Enter")
    page.wait_for_timeout(600)
    page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    assert page.locator("#tracks li").count() == 4  # a double press, or a key that is held, only asks
    assert button.inner_text() == "Really?"
    button.click()
    counts(page, "#tracks li", 3)
    shows(page, "#stats", "3 recordings")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_everybody_can_use_it(folder: Path, opened: Open, viewport: dict[str, int], scheme: str) -> None:
    page = opened(WRITE, viewport=viewport, color_scheme=scheme, bypass_csp=True)
    page.set_input_files("#file", folder / "noisy.wav")
    page.wait_for_selector("#answer .verdict")
    page.click("#answer summary")
    page.click("#token-button")
    page.wait_for_timeout(600)  # until nothing moves
    assert not serious(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_input_files("#file", folder / "other.wav")
    page.wait_for_selector("#answer .verdict.none")
    assert not serious(page)
    page.goto(page.url + "docs")
    page.wait_for_selector("#routes section")
    assert not serious(page)
