"""How the page looks, light and dark, and the names of pictures' colours in its style."""

from __future__ import annotations

from altrelu_dist import plots

__all__ = ["COLOURS", "STYLE"]

# The colours of a picture by their names in the page's style, which has them light and dark.
COLOURS = {
    plots.INK: "ink", plots.FAINT: "faint", plots.GRID: "grid",
    plots.ON_WEAK: "on-weak", plots.ON_STRONG: "on-strong",
    **{color: f"line{k}" for k, color in enumerate(plots.LINES)},
    **{color: f"step{k}" for k, color in enumerate(plots.STEPS)},
}  # fmt: skip

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f8fa; --ink: #1f2933;
  --faint: #5d6673; --grid: #e3e7ec; --edge: #d5dbe1; --link: #0b5f86;
  --on-weak: #101820; --on-strong: #ffffff;
  --line0: #0b6e99; --line1: #c8553e; --line2: #4d7d2e; --line3: #8a5fb0;
  --step0: #d3e5ee; --step1: #98c4d8; --step2: #539dbe; --step3: #1b7199; --step4: #0a4058; }
@media (prefers-color-scheme: dark) { :root { --paper: #12171d; --card: #1a2129; --ink: #e3e8ee;
  --faint: #9aa6b3; --grid: #29323c; --edge: #34404c; --link: #7cc4e6; --on-weak: #f2f6f9;
  --on-strong: #0b1218; --line0: #5bb8e0; --line1: #f08a73; --line2: #9ccc78; --line3: #c3a1e6;
  --step0: #1e3a4a; --step1: #27566e; --step2: #3d86aa; --step3: #72bcdf; --step4: #d2eefb; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; padding-top: .5rem;
  border-top: 1px solid var(--edge); overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p, ul { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--line0);
  outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0;
  max-width: none; }
.scores { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .6rem;
  margin: .6rem 0; }
.scores div { background: var(--card); border: 1px solid var(--edge); border-radius: .4rem;
  padding: .5rem .7rem; }
dt { color: var(--faint); font-size: .85rem; }
dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 1rem; align-items: start; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--edge); border-radius: .4rem;
  padding: .6rem; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 30rem; margin: 0 auto; }
figure text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans",
  sans-serif; }
figcaption, .note { color: var(--faint); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; color: var(--faint); padding: .2rem 0; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--edge);
  vertical-align: top; }
thead th { font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 6rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
summary { cursor: pointer; padding: .4rem 0; }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: .4rem; padding: .7rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 2rem; color: var(--faint); font-size: .9rem; }
@media print { :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000;
  --faint: #444; --grid: #ddd; --edge: #bbb; --link: #000; --on-weak: #101820; --on-strong: #fff;
  --line0: #0b6e99; --line1: #c8553e; --line2: #4d7d2e; --line3: #8a5fb0;
  --step0: #d3e5ee; --step1: #98c4d8; --step2: #539dbe; --step3: #1b7199; --step4: #0a4058; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav, .skip { display: none; }
  figure, tr, pre { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; } .small { grid-template-columns: 1fr 1fr 1fr; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; } }
"""
