"""The results as a table for a terminal."""


def number(value):
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def spread(low, high):
    return f"{number(low)} … {number(high)}"


def _aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def verdict(row):
    return {True: "met", False: "MISSED", None: ""}[row["met"]]


def render(about, results):
    lines = [f"{about['cpu']}, {about['cpus']} processors, {about['memory_gib']} GiB, "
             f"{about['system']}, {about['file_system']}; commit {about['commit']}; load before "
             f"{about['load_before'][0]}, after {about.get('load_after', ['?'])[0]}; "
             f"{about['rounds']} rounds, medians, spread is least … most"]
    for result in results:
        lines += ["", f"{result.name}: {result.title} ({result.seconds:.0f} s)"]
        if result.failure:
            lines.append("  " + result.failure)
        rows = [("figure", "median", "spread", "")]
        for one in result.series:
            if one.values:
                rows.append((f"{one.name}", f"{number(one.median)} {one.unit}",
                             spread(min(one.values), max(one.values)), ""))
        if len(rows) > 1:
            lines += _aligned(rows)
        rows = [("ratio", "median", "spread", "target", "")]
        for row in result.ratios():
            if row["ratio"] is not None:
                name = f"{row['of']} / {row['against']}" if row["against"] else row["of"]
                rows.append((name, number(row["ratio"]), spread(row["min"], row["max"]),
                             row["target"], verdict(row)))
        if len(rows) > 1:
            lines += _aligned(rows)
        for curve in result.curves:
            lines.append(f"  {curve.title} ({curve.y_label} by {curve.x_label}): " + "; ".join(
                f"{name} {number(x)}: {number(y)}" for name, x, y in curve.medians()))
        for one in result.series:
            lines += [f"  {one.name}: {note}" for note in one.notes]
        lines += [f"  {note}" for note in result.notes]
    return "\n".join(lines)
