"""Units: prefix x unit x power, "per", in words and symbols, read as a dimension and a size. Money is one."""

import itertools
import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """How large a unit is, in the base units of its dimension; `(("m", 1), ("s", -1))` is a speed."""

    size: Fraction
    dimension: tuple[tuple[str, int], ...]

    def __mul__(self, other: "Unit") -> "Unit":  # type: ignore[override]
        powers = Counter(dict(self.dimension))
        for base, power in other.dimension:
            powers[base] += power
        return Unit(self.size * other.size, tuple(sorted((base, power) for base, power in powers.items() if power)))

    def __pow__(self, power: int) -> "Unit":
        return Unit(self.size**power, tuple((base, one * power) for base, one in self.dimension if power))


_PREFIXES = {"p": -12, "n": -9, "μ": -6, "u": -6, "m": -3, "c": -2, "d": -1, "h": 2, "k": 3, "M": 6, "G": 9, "T": 12}
_PREFIX_WORD_WORDS = "pico nano micro milli centi deci hecto kilo mega giga tera"
_PREFIX_WORDS = dict(zip(_PREFIX_WORD_WORDS.split(), "pnμmcdhkMGT", strict=True))
_BASES = "m g s A K mol cd ° bit celsius fahrenheit % $ € £ ¥ ₹ ₩ ₽ 元"
# symbol -> its definition in what stands above it. What stands before the bar takes prefixes.
_DEFINITIONS = """
m g s A K mol cd bit Hz=1/s N=1000g·m/s^2 J=N·m W=J/s V=W/A Ω=V/A Pa=N/m^2 C=A·s F=C/V H=V·s/A Wb=V·s T=Wb/m^2
L=1/1000m^3 l=L eV=1.602176634e-19J cal=4.184J Wh=3600J bar=100000Pa byte=8bit B=byte t=1000000g
|
min=60s h=3600s hr=h d=24h day=d week=7d yr=365.25d year=yr month=1/12yr in=0.0254m ft=12in yd=3ft mi=1760yd nmi=1852m
lb=453.59237g oz=1/16lb ha=10000m^2 acre=4840yd^2 gal=3.785411784L atm=101325Pa mmHg=133.322387415Pa
mph=mi/h kph=1000m/h kmh=kph knot=nmi/h kgf=9.80665N dyn=1/100000N
cent=1/100$ 分钱=1/100元 USD=$ EUR=€ GBP=£ RMB=元 CNY=元 rad=57.295779513082320876798154814105170332405472466564°
"""
# symbol=the words for it
_WORDS = """
m=meter,metre,米,メートル,미터 g=gram,gramme,克,グラム s=second,sec,秒 min=minute,mins,分钟,分鐘 h=hour,hrs,小时,小時
h=时,時間,시간 d=days,天,日 day=day week=week month=month,个月 yr=year,年 in=inch,inche,英寸 ft=foot,feet,英尺 yd=yard
mi=mile,英里 nmi=海里 lb=lbs,pound oz=ounce L=liter,litre,升 t=ton,tonne,吨 gal=gallon km=千米,公里 cm=厘米,公分
mm=毫米 dm=分米 kg=千克,公斤 mL=毫升,cc ha=hectare,公顷 acre=acre °=deg,degree,度 rad=radian,弧度 celsius=°C,℃,摄氏度
fahrenheit=°F,℉,华氏度 K=kelvin N=newton,牛,牛顿 J=joule,焦耳,焦 W=watt,瓦,瓦特 V=volt,伏,伏特 A=ampere,amp,安,安培
Ω=ohm,欧,欧姆 Pa=pascal,帕 C=coulomb,库仑 F=farad H=henry T=tesla Hz=hertz,赫兹 mol=mole,摩尔 cal=calorie,卡路里
eV=electronvolt atm=atmosphere bar=bar byte=byte bit=bit %=percent,pct $=dollar,buck,美元 €=euro,欧元 £=quid,英镑
元=yuan,renminbi,块 ¥=yen,日元,円 ₹=rupee cent=cent,美分 knot=knot,kn,节
"""
_AMBIGUOUS = {"C": ("C", "celsius"), "F": ("F", "fahrenheit"), "¥": ("¥", "元")}
_AMBIGUOUS |= dict.fromkeys(("pound", "pounds"), ("lb", "£"))
_TOKEN = re.compile(
    r"\s*(°\s?[CF](?![A-Za-z])|[%°$€£¥₹₩₽]|\\\$|\\(?:Omega|mu|AA)(?![a-zA-Z])"
    r"|[^\W\d_]+|\^\s?[{(]?[-+]?\d{1,2}[)}]?(?!\d)|(?<=[^\W\d_)])-?\d{1,2}(?!\d)"
    r"|[·*×/()\-]|\\(?:cdot|times)(?![a-zA-Z]))"
)
_LATEX = {r"\$": "$", r"\Omega": "Ω", r"\mu": "μ", r"\cdot": "·", r"\times": "·", "*": "·", "×": "·", "-": "·"}
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
LONGEST = 80

_known: dict[str, Unit] = {base: Unit(Fraction(1), ((base, 1),)) for base in _BASES.split()}


@lru_cache(maxsize=4096)
def read_unit(text: str) -> tuple[Unit, ...]:
    r"""Return what a text may mean that is a unit and nothing else: nothing, one unit, or the two of "20 C".

    >>> read_unit("km/h") == read_unit("kilometres per hour") == read_unit("kmh") == read_unit("公里/小时") != ()
    True
    >>> read_unit("square meters") == read_unit("m^2") == read_unit("m^{2}"), read_unit("apples"), len(read_unit("C"))
    (True, (), 2)
    """
    if len(text) > LONGEST:
        return ()
    text = text.replace("per cent", "%").replace("平方", " square ").replace("立方", " cubic ").replace("每", " per ")
    if _TOKEN.sub("", text).strip():
        return ()
    found, rest = _product([_LATEX.get(token, token) for token in _TOKEN.findall(text)])
    return found if not rest else ()


def _product(tokens: list[str]) -> tuple[tuple[Unit, ...], list[str]]:
    """Read "factor · factor / factor per factor" from the left."""
    found, tokens = _factor(tokens)
    while found and tokens and tokens[0] != ")":
        sign = -1 if tokens[0] in ("/", "per", "a") else 1
        follows, rest = _factor(tokens[1:] if tokens[0] in ("·", "/", "per", "a") else tokens)
        if not follows:
            return (), tokens
        found, tokens = tuple(one * two**sign for one, two in itertools.product(found[:2], follows[:2])), rest
    return found, tokens


def _factor(tokens: list[str]) -> tuple[tuple[Unit, ...], list[str]]:
    if not tokens:
        return (), tokens
    head, *rest = tokens
    power = 1
    if head.lower() in _POWER_WORDS and rest:
        found, rest = _factor(rest)
        return tuple(one ** _POWER_WORDS[head.lower()] for one in found), rest
    if head == "(":
        found, rest = _product(rest)
        if not rest or rest.pop(0) != ")":
            return (), rest
    else:
        if head.lower() in ("degrees", "degree", "deg", "°") and rest and rest[0].lower() in ("celsius", "fahrenheit"):
            head, *rest = rest
        found = lookup(head)
    if rest and rest[0].lower() in ("squared", "cubed"):
        power = _POWER_WORDS[rest.pop(0).lower()]
    elif rest and re.search(r"\d", rest[0]):
        power = int(re.sub(r"[^\d-]", "", rest.pop(0)))
    return tuple(one**power for one in found), rest


@lru_cache(maxsize=1024)
def lookup(word: str) -> tuple[Unit, ...]:
    """Return what one word or symbol may mean, as `read_unit` does.

    >>> lookup("millilitres") == lookup("mL"), lookup("MW") == lookup("mW"), lookup("KM") == lookup("km"), lookup("x")
    (True, False, True, ())
    """
    if word in _AMBIGUOUS:
        return tuple(_known[name] for name in _AMBIGUOUS[word])
    word = re.sub(r"\s", "", word).replace("µ", "μ").replace("Ω", "Ω")
    if word in _known:
        return (_known[word],)
    small = word.casefold()
    for name in (small, small.removesuffix("s"), small.removesuffix("es")):
        if (len(name) > 1 or not name.isascii()) and name in _spelled:
            return (_known[_spelled[name]],)
    for prefix, symbol in _PREFIX_WORDS.items():
        if small.startswith(prefix):
            rest = small[len(prefix) :]
            prefixed = symbol + (_spelled.get(rest) or _spelled.get(rest.removesuffix("s"), ""))
            if len(prefixed) > len(symbol) and prefixed in _known:
                return (_known[prefixed],)
    folded = _folded.get(_in_any_case(word)) if len(word) > 1 else None
    return (_known[folded],) if folded else ()


def _in_any_case(unit: str) -> str:
    """Fold the case of a unit, but not of an M: a megawatt is no milliwatt."""
    return unit[0].replace("M", "mega").casefold() + unit[1:].casefold()


def _define() -> None:
    """Fill the tables, in the order of the definitions: each stands on the ones above it."""
    prefixed, _, bare = _DEFINITIONS.partition("|")
    for entry in [*prefixed.split(), *bare.split()]:
        name, _, meaning = entry.partition("=")
        if meaning:
            factor = re.match(r"(\d[\d.]*(?:e-?\d+)?(?:/\d+(?=[^\W\d_]|\$))?)?(/?)(.*)", meaning)
            assert factor is not None
            (unit, *_), _ = _product(_TOKEN.findall(factor[3]))
            _known[name] = Unit(Fraction(factor[1] or 1), ()) * (unit**-1 if factor[2] else unit)
        if entry in prefixed.split():
            for prefix in "kMGT" if name in ("bit", "byte", "B", "t", "bar") else _PREFIXES:
                _known.setdefault(prefix + name, Unit(Fraction(10) ** _PREFIXES[prefix], ()) * _known[name])
    for entry in _WORDS.split():
        name, _, words = entry.partition("=")
        _spelled.update(dict.fromkeys(words.casefold().split(","), name))


_spelled: dict[str, str] = {}
_folded: dict[str, str] = {}
_define()
lookup.cache_clear()
_folded.update({_in_any_case(name): name for name in reversed(_known) if len(name) > 1 and name[0] not in "%$"})
