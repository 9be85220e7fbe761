"""The results as one page that needs nothing else: tables, and charts as plain SVG."""
import html
import math

from suite.table import number, spread

STYLE = """
:root { color-scheme: light dark; --line: #8884; --pesc: #2f6fde; --reference: #7b8794;
        --peer: #c08a3e; --good: #2e8b57; --bad: #c0392b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .6rem 0; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .2rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
h2 { margin-top: 2.4rem; border-top: 2px solid var(--line); padding-top: .8rem; font-size: 1.15rem; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
.note, .about { color: #777; font-size: .9rem; } svg { max-width: 100%; height: auto; }
svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
"""
COLOURS = ["var(--pesc)", "var(--reference)", "var(--peer)", "var(--good)", "var(--bad)", "#8e5bb5"]


def _text(value):
    return html.escape(str(value))


def bars(series):
    """Medians as bars, least and most as whiskers."""
    shown = [one for one in series if one["values"]]
    if not shown:
        return ""
    left, right, row = 230, 120, 24
    width = 860
    most = max(one["max"] for one in shown) or 1
    scale = (width - left - right) / most
    parts = [f'<svg viewBox="0 0 {width} {row * len(shown) + 8}" role="img">']
    for i, one in enumerate(shown):
        y = i * row + 4
        end = left + one["median"] * scale
        low, high = left + one["min"] * scale, left + one["max"] * scale
        middle = y + row / 2 - 2
        parts.append(f'<text x="{left - 8}" y="{middle + 4}" text-anchor="end">{_text(one["name"])}</text>'
                     f'<rect x="{left}" y="{y}" width="{max(end - left, 1):.1f}" height="{row - 6}" '
                     f'fill="var(--{one["role"]})"/>'
                     f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} '
                     f'{middle - 4}v8" stroke="currentColor" fill="none"/>'
                     f'<text x="{max(end, high) + 8:.1f}" y="{middle + 4}">{number(one["median"])} '
                     f'{_text(one["unit"])}</text>')
    return "".join(parts) + "</svg>"


def _ticks(low, high, log):
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0 ** power for power in range(first, last + 1)]
    step = 10 ** math.floor(math.log10((high - low) or 1))
    while (high - low) / step > 6:
        step *= 2
    start = math.floor(low / step) * step
    return [start + i * step for i in range(int((high - start) / step) + 2)]


def _tick_text(value):
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def lines(curve):
    points = curve["points"]
    if not points:
        return ""
    width, height, left, bottom, top = 700, 280, 70, 40, 16
    log = curve["log_x"] and min(x for _, x, _ in points) > 0
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    x_ticks = _ticks(min(xs), max(xs), log)
    y_ticks = _ticks(0, max(ys) or 1, False)
    place = (lambda x: math.log10(x)) if log else (lambda x: x)
    x_low, x_high = place(x_ticks[0]), place(x_ticks[-1])

    def at(x, y):
        return (left + (place(x) - x_low) / ((x_high - x_low) or 1) * (width - left - 140),
                height - bottom - y / (y_ticks[-1] or 1) * (height - bottom - top))
    parts = [f'<h3>{_text(curve["title"])}</h3><svg viewBox="0 0 {width} {height}" role="img">']
    for tick in y_ticks:
        _, y = at(x_ticks[0], tick)
        parts.append(f'<path d="M{left} {y:.1f}H{width - 140}" stroke="var(--line)"/>'
                     f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick_text(tick)}</text>')
    for tick in x_ticks:
        x, _ = at(tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">'
                     f'{_tick_text(tick)}</text>')
    parts.append(f'<text x="{(left + width - 140) / 2}" y="{height - 6}" text-anchor="middle">'
                 f'{_text(curve["x_label"])}</text><text x="4" y="12">{_text(curve["y_label"])}</text>')
    names = list(dict.fromkeys(name for name, _, _ in points))
    for i, name in enumerate(names):
        colour = COLOURS[i % len(COLOURS)]
        dots = sorted(at(x, y) for each, x, y in points if each == name)
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in dots]
        parts.append(f'<rect x="{width - 130}" y="{top + i * 18}" width="10" height="10" fill="{colour}"/>'
                     f'<text x="{width - 114}" y="{top + 9 + i * 18}">{_text(name)}</text>')
    return "".join(parts) + "</svg>"


def _ratio_rows(rows, name=None):
    out = []
    for row in rows:
        if row["ratio"] is None:
            continue
        what = f"{row['of']} / {row['against']}" if row["against"] else row["of"]
        met = {True: '<td class="met">met</td>', False: '<td class="missed">missed</td>',
               None: "<td></td>"}[row["met"]]
        first = f"<td>{_text(name)}: {_text(what)}</td>" if name else f"<td>{_text(what)}</td>"
        out.append(f"<tr>{first}<td>{number(row['ratio'])}</td><td>{spread(row['min'], row['max'])}</td>"
                   f"<td>{_text(row['target'])}</td>{met}</tr>")
    return "".join(out)


HEAD = "<tr><th>ratio</th><th>median</th><th>spread</th><th>target</th><th></th></tr>"


def _benchmark(one):
    parts = [f'<h2 id="{_text(one["name"])}">{_text(one["title"])} <small>({_text(one["name"])})</small></h2>']
    if one["failure"]:
        parts.append(f'<p class="missed">{_text(one["failure"])}</p>')
    for unit in dict.fromkeys(each["unit"] for each in one["series"]):
        parts.append(bars([each for each in one["series"] if each["unit"] == unit]))
    rows = _ratio_rows(one["ratios"])
    if rows:
        parts.append(f"<table>{HEAD}{rows}</table>")
    parts += [lines(curve) for curve in one["curves"]]
    for each in one["series"]:
        parts += [f'<p class="note">{_text(each["name"])}: {_text(note)}</p>' for note in each["notes"]]
    parts += [f'<p class="note">{_text(note)}</p>' for note in one["notes"]]
    return "".join(parts)


def render(everything):
    about = everything["about"]
    facts = [f"{about['cpu']}, {about['cpus']} processors, {about['memory_gib']} GiB",
             f"{about['system']}, Linux {about['kernel']}, {about['file_system']}", about["compiler"],
             f"commit {about['commit']}", f"load before {about['load_before'][0]}, after "
             f"{about.get('load_after', ['?'])[0]}", f"{about['rounds']} rounds"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    overview = "".join(_ratio_rows([row for row in one["ratios"] if row["target"]], one["name"])
                       for one in everything["benchmarks"])
    return ("<!doctype html><html lang=en><meta charset=utf-8><title>PESC benchmarks</title>"
            f"<style>{STYLE}</style><h1>PESC beside its references</h1>"
            f'<p class="about"><code>{_text(about["command"])}</code>, {_text(about["date"])}<br>'
            f"{_text('; '.join(facts))}<br>{_text(packages)}</p>"
            "<p>Medians, and from the least to the most; a ratio is the median of the rounds' ratios.</p>"
            f"<table>{HEAD}{overview}</table>" +
            "".join(_benchmark(one) for one in everything["benchmarks"]) + "</html>\n")
