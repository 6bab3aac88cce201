"""A JupyterLab of its own, and a page of it in headless Chromium."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.system.shared import until

START_S = 60
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PLAIN = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def what_is_missing() -> str:
    """Which of the things that are needed is not here; empty if all are."""
    for package in ("jupyterlab", "playwright"):
        if importlib.util.find_spec(package) is None:
            return package
    return "" if find_browser() else "Chromium"


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """A JupyterLab that serves this directory; gives its address, with the token."""
    settings = directory / ".settings"
    for plugin, values in _PLAIN.items():
        path = settings / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    log = directory / ".lab.log"
    options = ["--no-browser", "--allow-root", "--ServerApp.port=0", f"--LabApp.user_settings_dir={settings}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=directory,
            env={**os.environ, "JUPYTER_CONFIG_DIR": str(directory / ".config"), "HOME": str(directory)},
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: address_in(log) or process.poll() is not None, patience_s=START_S)
        address = address_in(log)
        assert address, log.read_text()[-2000:]
        yield address
    finally:
        process.terminate()
        process.wait(20)


def address_in(log: Path) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", log.read_text())
    return found[0] if found else ""


@contextmanager
def browse(address: str, notebook: str) -> Iterator[Any]:
    """The page of a notebook."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.goto(address.replace("/lab?", f"/lab/tree/{notebook}?"))
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=START_S * 1000)
            page.get_by_text("| Idle").wait_for(timeout=START_S * 1000)  # its kernel is there
            yield page
        finally:
            browser.close()
