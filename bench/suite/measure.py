"""Series of figures, their medians and spread, and the ratio of two series of the same rounds."""
import dataclasses
import statistics
import typing


@dataclasses.dataclass
class Series:
    """What one contender has shown, a figure for each round."""
    name: str
    role: str  # "pesc", "reference" or "peer"
    unit: str
    values: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    @property
    def median(self):
        return statistics.median(self.values) if self.values else None

    def as_json(self):
        return {"name": self.name, "role": self.role, "unit": self.unit, "values": self.values,
                "median": self.median, "min": min(self.values, default=None),
                "max": max(self.values, default=None), "notes": self.notes}


@dataclasses.dataclass
class Target:
    """What PESC's series shall be beside another one: at least, or at most, a share of it."""
    against: str
    at_least: typing.Optional[float] = None
    at_most: typing.Optional[float] = None
    of: typing.Optional[str] = None  # the series that is compared; default: the first of role pesc

    def text(self):
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"≤ {self.at_most:g}" if self.at_most is not None else ""

    def met(self, ratio):
        if self.at_least is not None:
            return ratio >= self.at_least
        return ratio <= self.at_most if self.at_most is not None else None


@dataclasses.dataclass
class Bound:
    """What a series shall keep by itself, in its own unit."""
    of: str
    at_least: typing.Optional[float] = None
    at_most: typing.Optional[float] = None
    text = Target.text
    met = Target.met


@dataclasses.dataclass
class Curve:
    """How a cost grows: points of (x, y), for a chart."""
    title: str
    x_label: str
    y_label: str
    points: list  # of (name of the line, x, y)
    log_x: bool = True

    def medians(self):
        """A point for each line and x, of all rounds."""
        seen = {}
        for name, x, y in self.points:
            seen.setdefault((name, x), []).append(y)
        return [(name, x, statistics.median(values)) for (name, x), values in sorted(seen.items())]

    def as_json(self):
        return {**dataclasses.asdict(self), "points": self.medians()}


class Result:
    """Of one benchmark."""

    def __init__(self, name, title):
        self.name, self.title = name, title
        self.series, self.targets, self.curves, self.notes = [], [], [], []
        self.failure = ""
        self.seconds = 0.0

    def add(self, name, role, unit, values=(), notes=()):
        one = Series(name, role, unit, list(values), list(notes))
        self.series.append(one)
        return one

    def find(self, name):
        return next((one for one in self.series if one.name == name), None)

    def ratios(self):
        """A row for each target: paired by round, so that a drift of the machine falls out."""
        rows = []
        for target in self.targets:
            if isinstance(target, Bound):
                rows.append(self._bound_row(target))
                continue
            ours = self.find(target.of) if target.of else next(
                (one for one in self.series if one.role == "pesc"), None)
            other = self.find(target.against)
            row = {"of": ours.name if ours else "pesc", "against": target.against,
                   "target": target.text(), "ratio": None, "min": None, "max": None, "met": None}
            if ours and other and ours.values and other.values:
                pairs = [a / b for a, b in zip(ours.values, other.values) if b]
                if pairs:
                    row.update(ratio=statistics.median(pairs), min=min(pairs), max=max(pairs))
                    row["met"] = target.met(row["ratio"])
            rows.append(row)
        return rows

    def _bound_row(self, bound):
        ours = self.find(bound.of)
        row = {"of": bound.of, "against": "", "target": f"{bound.text()} {ours.unit if ours else ''}",
               "ratio": None, "min": None, "max": None, "met": None}
        if ours and ours.values:
            row.update(ratio=ours.median, min=min(ours.values), max=max(ours.values),
                       met=bound.met(ours.median))
        return row

    def as_json(self):
        return {"name": self.name, "title": self.title, "seconds": round(self.seconds, 1),
                "failure": self.failure, "series": [one.as_json() for one in self.series],
                "ratios": self.ratios(), "curves": [one.as_json() for one in self.curves],
                "notes": self.notes}


class Contender:
    """Something that runs a number of things and says how many it did in a second."""

    def __init__(self, name, role, run, warm_up=100, most=1_000_000):
        self.name, self.role, self.run = name, role, run
        self.warm_up, self.most = warm_up, most


def compete(bench, result, contenders, seconds, unit="/s"):
    """Rounds of all contenders, each for about so many seconds, in turn, forwards and backwards
    alternately. A peer that fails is left out with the reason; ours and the references must not."""
    sizes, series = {}, {}
    for one in contenders:
        series[one.name] = result.add(one.name, one.role, unit)
    left = []
    for one in contenders:
        try:
            rate = one.run(one.warm_up)
            # The first run pays for what is not there yet; a second one says how much fits.
            rate = max(rate, one.run(max(one.warm_up, int(min(rate * 0.3, one.most)))))
            sizes[one.name] = max(one.warm_up, min(int(rate * seconds), one.most))
            left.append(one)
        except bench.PeerFailed as error:
            if one.role != "peer":
                raise
            series[one.name].notes.append(f"did not run: {error}")
    for number in range(bench.runs):
        for one in (left if number % 2 == 0 else reversed(left)):
            try:
                rate = one.run(sizes[one.name])
            except bench.PeerFailed as error:
                if one.role != "peer":
                    raise
                series[one.name].notes.append(f"round {number + 1} failed: {error}")
                rate = None
            if rate is not None:
                series[one.name].values.append(rate)
                bench.progress(f"{result.name}: round {number + 1}/{bench.runs}: {one.name} {rate:,.0f}{unit}")
    return series
