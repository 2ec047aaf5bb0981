"""README's figure from the results of experiment 2, drawn by plotly and photographed by headless Chromium.

    python docs/figures/make.py
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from llmsim.reports import plots

ROOT = Path(__file__).parents[2]
SHOWN = ["Sarathi fcfs", "Sarathi spf", "SLAI spf, fixed offset", "SLAI spf, dynamic offset", "vLLM v0"]


def headline() -> go.Figure:
    """Median TTFT against the load for the policies of the study that a reader asks about first."""
    bands = pd.read_csv(ROOT / "experiments" / "results" / "02_slai_headline" / "curves.csv")
    bands = bands[bands["policy"].isin(SHOWN) & (bands["rate"] >= 0.6)]
    figure = plots.lines_with_band(
        bands,
        "rate",
        "median_ttft_s",
        "policy",
        "median_ttft_s_low",
        "median_ttft_s_high",
        title="Mistral-7B on one RTX 6000 Ada, ShareGPT lengths: who keeps a median TTFT of 0.5 s?",
        x_title="requests per second",
        y_title="median TTFT (s), 95 % bands over seeds",
        log_y=True,
        hlines={"0.5 s": 0.5},
    )
    return figure.update_layout(width=900, height=460, margin={"l": 70, "r": 20})


def photograph(figure: go.Figure, path: Path) -> None:
    """The figure as PNG."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("no chromium on the PATH; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        page.write_text(figure.to_html(include_plotlyjs=True, full_html=True, config={"displayModeBar": False}))
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/p"]
        flags += ["--window-size=916,476", "--virtual-time-budget=5000", f"--screenshot={path}"]
        subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    target = Path(__file__).with_name("slai_headline.png")
    photograph(headline(), target)
    print(target)
