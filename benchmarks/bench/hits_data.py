"""A table like ClickBench's `hits`, which cannot be had everywhere: made up, of the same 105 columns.

    python -m bench.hits_data --rows 10000000 FILE

Made by DuckDB from the row's number alone, so that every run makes the same rows. The shapes are those of a web
counter: a few sites, users, pages and phrases have most of the hits and very many have one; most phrases, referers'
parameters and phone models are empty; and what the 43 queries look for is there, as often as they need to find
something. Differences from the published Parquet file: times are timestamps, dates are dates and texts are UTF-8
(there they are plain numbers and bytes), and the rows are made up, so times do not compare with published ones.

Row groups hold a million rows, each sorted by counter, date and user, as the original's parts are.
"""

import argparse
import json
import time
from pathlib import Path

import duckdb
import pyarrow.parquet

ROW_GROUP = 1_000_000
# Sites, each with a counter. The one that queries 37 to 43 look at gets a fiftieth of all hits.
SITES = 6_000
SITE_COUNTER = 62
PHRASES = 400_000
# What the queries look for.
USER = 435090932899640449
REFERER_HASH = 3594120000172545465
URL_HASH = 2868770270353813622

WORDS = (
    "купить", "дом", "работа", "погода", "фото", "видео", "москва", "авто", "цена", "онлайн", "смотреть", "бесплатно",
    "отзывы", "магазин", "скачать", "новости", "рецепт", "своими", "руками", "квартира", "расписание", "карта",
    "игры", "фильм", "сериал", "песня", "телефон", "ремонт", "мебель", "платье", "билеты", "гороскоп", "форум",
    "недвижимость", "вакансии", "лето", "море", "отдых", "дети", "школа", "спорт", "футбол", "музыка", "книга",
    "сад", "дача", "кухня", "салат", "торт", "собака", "кошка", "доставка", "Google", "карты", "iphone", "toyota",
    "bmw", "2013", "скидки", "форма",
)  # fmt: skip
SECTIONS = (
    "catalog",
    "news",
    "forum/topic",
    "photo/album",
    "search",
    "user/profile",
    "video/watch",
    "goods",
    "help",
    "jobs",
)
REFERERS = (
    "vk.com",
    "mail.ru",
    "odnoklassniki.ru",
    "rambler.ru",
    "livejournal.com",
    "avito.ru",
    "auto.ru",
    "kinopoisk.ru",
)


def draw(salt: int, of: str = "i") -> str:
    """An SQL expression for a number in [0, 1) that depends on `of` alone, and looks independent of other salts'.

    `hash(of, salt)` would not: DuckDB joins two hashes by an exclusive or, after which one says what the other is.
    """
    return f"((hash(xor(hash({of}), {salt}::UBIGINT)) >> 11) / 9007199254740992.0)"


def skewed(salt: int, count: int, power: float, of: str = "i") -> str:
    """One of `count` numbers, the small ones often."""
    return f"CAST(floor({count} * pow({draw(salt, of)}, {power})) AS BIGINT)"


def one_of(values: tuple, salt: int, power: float = 1.0, of: str = "i") -> str:
    return f"{list(values)}[1 + {skewed(salt, len(values), power, of)}]"


def sometimes(share: float, salt: int, value: str, otherwise: str = "0", of: str = "i") -> str:
    return f"CASE WHEN {draw(salt, of)} < {share} THEN {value} ELSE {otherwise} END"


def number(of: str, salt: int, bits: int) -> str:
    """A whole number of so many bits that depends on a value."""
    return f"CAST(hash(xor(hash({of}), {salt}::UBIGINT)) >> {64 - bits} AS BIGINT)"


def phrase(numbered: str) -> str:
    """Two to four words, each phrase its own by the last."""
    return (
        f"concat_ws(' ', {one_of(WORDS, 90, of=numbered)}, {one_of(WORDS, 91, of=numbered)}, "
        f"CASE WHEN {numbered} % 3 > 0 THEN {one_of(WORDS, 92, of=numbered)} END, "
        f"CASE WHEN {numbered} > 2000 THEN CAST({numbered} AS VARCHAR) END)"
    )


# The steps by which a row comes about; each may use those before it.
STEPS = [
    # One hit in a hundred thousand was counted twice.
    "SELECT range - CAST(range % 100000 = 1 AS INTEGER) AS i FROM range({first}, {behind})",
    f"""SELECT *, {skewed(1, SITES, 4)} AS any_site, {skewed(2, 3_000_000, 1.6)} AS user_number,
           TIMESTAMP '2013-07-01' + to_seconds(CAST(floor({draw(3)} * 31 * 86400) AS BIGINT)) AS event_time,
           {draw(4)} AS source_draw, {sometimes(0.13, 5, "true", "false")} AS searched,
           {skewed(6, PHRASES, 3)} AS phrase_number""",
    # Site 7 is the one with the counter that is looked at.
    f"SELECT *, {sometimes(0.02, 7, '7', 'any_site')} AS site",
    f"""SELECT *, CASE WHEN site = 7 THEN {SITE_COUNTER} ELSE 100 + (site * 7919) % 250000 END AS counter,
           CASE WHEN site = 7 AND {draw(8)} < 0.4 THEN 0 ELSE {skewed(9, 40_000, 3)} END AS page""",
    """SELECT *, 'http://' || CASE WHEN page % 17 = 3 THEN 'www.' ELSE '' END || 'site' || site || '.ru/' AS home""",
    f"""SELECT *,
           home || CASE WHEN page = 0 THEN '' ELSE {one_of(SECTIONS, 10, 1.5, "page + site")} || '/' || page || '.html' END
             || CASE WHEN page > 0 AND {draw(11)} < 0.15 THEN '?id=' || {number("i", 12, 40)}
                     WHEN {draw(13)} < 0.0008 THEN '?from=google&click=' || {number("i", 14, 30)} ELSE '' END AS url,
           CASE WHEN searched THEN {phrase("phrase_number")} ELSE '' END AS search_phrase,
           CASE WHEN searched THEN 'http://yandex.ru/yandsearch?lr=' || (phrase_number % 300) || '&text=' || phrase_number
                WHEN source_draw < 0.2 THEN ''
                WHEN source_draw < 0.28 THEN home
                WHEN source_draw < 0.55 THEN home || {one_of(SECTIONS, 15)} || '/' || {skewed(16, 40_000, 3)} || '.html'
                WHEN source_draw < 0.8 THEN 'http://' || {one_of(REFERERS, 17, 2)} || '/' || {number("i", 18, 34)}
                ELSE 'https://www.blog' || {skewed(19, 50_000, 3)} || '.com/post/' || {skewed(20, 5000, 2)} END AS referer""",
]

# Name, type and value of each column, as ClickBench has them.
COLUMNS = [
    ("WatchID", "BIGINT", number("i", 21, 63)),
    ("JavaEnable", "SMALLINT", sometimes(0.6, 22, "1")),
    ("Title", "VARCHAR", sometimes(0.12, 23, "''", f"{phrase('(page + site)')} || ' — site' || site")),
    ("GoodEvent", "SMALLINT", "1"),
    ("EventTime", "TIMESTAMP", "event_time"),
    ("EventDate", "DATE", "event_time"),
    ("CounterID", "INTEGER", "counter"),
    ("ClientIP", "INTEGER", number("user_number", 24, 32) + " - 2147483648"),
    ("RegionID", "INTEGER", skewed(25, 5_000, 5, "user_number")),
    ("UserID", "BIGINT", f"CASE WHEN user_number = 4321 THEN {USER} ELSE {number('user_number', 26, 63)} END"),
    ("CounterClass", "SMALLINT", sometimes(0.2, 27, "1")),
    ("OS", "SMALLINT", one_of((2, 44, 7, 3, 1, 35, 28, 0), 28, 2, "user_number")),
    ("UserAgent", "SMALLINT", one_of((5, 7, 3, 2, 42, 76, 4, 1), 29, 2, "user_number")),
    ("URL", "VARCHAR", sometimes(0.0003, 30, "''", "url")),
    ("Referer", "VARCHAR", "referer"),
    ("IsRefresh", "SMALLINT", sometimes(0.13, 31, "1")),
    ("RefererCategoryID", "SMALLINT", skewed(32, 15_000, 8)),
    ("RefererRegionID", "INTEGER", skewed(33, 700, 6)),
    ("URLCategoryID", "SMALLINT", "(site * 31) % 15000"),
    ("URLRegionID", "INTEGER", "(site * 17) % 700"),
    ("ResolutionWidth", "SMALLINT", one_of((1366, 1920, 1280, 1024, 1600, 1680, 1440, 1638, 800, 0), 34, 1.8, "user_number")),
    ("ResolutionHeight", "SMALLINT", one_of((768, 1080, 1024, 768, 900, 1050, 900, 1024, 600, 0), 34, 1.8, "user_number")),
    ("ResolutionDepth", "SMALLINT", one_of((24, 32, 23, 0), 35, 3, "user_number")),
    ("FlashMajor", "SMALLINT", one_of((11, 10, 0, 9), 36, 2, "user_number")),
    ("FlashMinor", "SMALLINT", skewed(37, 9, 1.5, "user_number")),
    ("FlashMinor2", "VARCHAR", one_of(("700", "202", "0", "", "300"), 38, 1.5, "user_number")),
    ("NetMajor", "SMALLINT", sometimes(0.3, 39, "4", of="user_number")),
    ("NetMinor", "SMALLINT", "0"),
    ("UserAgentMajor", "SMALLINT", "10 + " + skewed(40, 20, 2, "user_number")),
    ("UserAgentMinor", "VARCHAR", one_of(("0", "D", "12", "9", ""), 41, 2, "user_number")),
    ("CookieEnable", "SMALLINT", sometimes(0.99, 42, "1")),
    ("JavascriptEnable", "SMALLINT", sometimes(0.98, 43, "1")),
    ("IsMobile", "SMALLINT", sometimes(0.1, 44, "1", of="user_number")),
    ("MobilePhone", "SMALLINT", sometimes(0.1, 44, f"1 + {skewed(45, 90, 3, 'user_number')}", of="user_number")),
    (
        "MobilePhoneModel", "VARCHAR",
        sometimes(0.05, 44, one_of(("iPad", "iPhone", "A500", "N8-00", "GT-I9300", "HD7"), 46, 2, "user_number")
                  + f" || CASE WHEN user_number % 7 > 1 THEN '' ELSE ' ' || {skewed(47, 160, 2, 'user_number')} END",
                  "''", "user_number"),
    ),
    ("Params", "VARCHAR", "''"),
    ("IPNetworkID", "INTEGER", skewed(48, 4_000_000, 3, "user_number")),
    ("TraficSourceID", "SMALLINT", "CASE WHEN searched THEN 2 WHEN referer = '' THEN 0 WHEN referer = home THEN "
     + one_of((-1, 6, 1), 49) + " ELSE " + one_of((1, -1, 3, 5, 6, 7, 8), 50, 2) + " END"),
    ("SearchEngineID", "SMALLINT", f"CASE WHEN searched THEN {one_of((2, 3, 13, 1, 39), 51, 2)} ELSE 0 END"),
    ("SearchPhrase", "VARCHAR", "search_phrase"),
    ("AdvEngineID", "SMALLINT", sometimes(0.0065, 52, one_of((2, 27, 13, 45, 44, 3, 62, 52, 50, 28, 53, 25, 61, 21, 42), 53, 3))),
    ("IsArtifical", "SMALLINT", sometimes(0.01, 54, "1")),
    ("WindowClientWidth", "SMALLINT", f"600 + {skewed(55, 1400, 1)}"),
    ("WindowClientHeight", "SMALLINT", f"300 + {skewed(56, 800, 1)}"),
    ("ClientTimeZone", "SMALLINT", one_of((135, 157, 0, 180, 240), 57, 3, "user_number")),
    ("ClientEventTime", "TIMESTAMP", f"event_time + to_seconds(CAST(60 * ({draw(58)} - 0.5) AS BIGINT))"),
    ("SilverlightVersion1", "SMALLINT", sometimes(0.3, 59, "5", of="user_number")),
    ("SilverlightVersion2", "SMALLINT", sometimes(0.3, 59, "1", of="user_number")),
    ("SilverlightVersion3", "INTEGER", sometimes(0.3, 59, "20125", of="user_number")),
    ("SilverlightVersion4", "SMALLINT", "0"),
    ("PageCharset", "VARCHAR", one_of(("windows-1251", "utf-8", "windows"), 60, 1.5, "site")),
    ("CodeVersion", "INTEGER", one_of((1601, 291, 1564, 277), 61, 1.5, "site")),
    ("IsLink", "SMALLINT", sometimes(0.12, 62, "1")),
    ("IsDownload", "SMALLINT", sometimes(0.002, 63, "1")),
    ("IsNotBounce", "SMALLINT", sometimes(0.03, 64, "1")),
    ("FUniqID", "BIGINT", sometimes(0.6, 65, number("user_number", 66, 63), of="user_number")),
    ("OriginalURL", "VARCHAR", sometimes(0.03, 67, "url", "''")),
    ("HID", "INTEGER", number("i", 68, 31)),
    ("IsOldCounter", "SMALLINT", "0"),
    ("IsEvent", "SMALLINT", sometimes(0.01, 69, "1")),
    ("IsParameter", "SMALLINT", sometimes(0.005, 70, "1")),
    ("DontCountHits", "SMALLINT", sometimes(0.08, 71, "1")),
    ("WithHash", "SMALLINT", sometimes(0.02, 72, "1")),
    ("HitColor", "VARCHAR", one_of(("5", "g", "E", "S", "D", "1"), 73, 3)),
    ("LocalEventTime", "TIMESTAMP", "event_time + INTERVAL 4 HOURS"),
    ("Age", "SMALLINT", sometimes(0.4, 74, one_of((16, 22, 31, 50), 75, of="user_number"), of="user_number")),
    ("Sex", "SMALLINT", sometimes(0.4, 74, f"1 + {skewed(76, 2, 1, 'user_number')}", of="user_number")),
    ("Income", "SMALLINT", sometimes(0.4, 74, f"1 + {skewed(77, 4, 1, 'user_number')}", of="user_number")),
    ("Interests", "SMALLINT", skewed(78, 16_000, 4, "user_number")),
    ("Robotness", "SMALLINT", skewed(79, 100, 9, "user_number")),
    ("RemoteIP", "INTEGER", number("user_number", 24, 32) + " - 2147483648"),
    ("WindowName", "INTEGER", skewed(80, 10_000, 9) + " - 1"),
    ("OpenerName", "INTEGER", skewed(81, 10_000, 9) + " - 1"),
    ("HistoryLength", "SMALLINT", skewed(82, 50, 4) + " - 1"),
    ("BrowserLanguage", "VARCHAR", one_of(("ru", "en", "uk", "S0", "s"), 83, 4, "user_number")),
    ("BrowserCountry", "VARCHAR", one_of(("RU", "US", "UA", "nD", "f"), 84, 4, "user_number")),
    ("SocialNetwork", "VARCHAR", sometimes(0.001, 85, "'vkontakte'", "''")),
    ("SocialAction", "VARCHAR", sometimes(0.001, 85, "'like'", "''")),
    ("HTTPError", "SMALLINT", sometimes(0.002, 86, "404")),
    ("SendTiming", "INTEGER", skewed(87, 30_000, 9)),
    ("DNSTiming", "INTEGER", skewed(88, 3_000, 9)),
    ("ConnectTiming", "INTEGER", skewed(89, 5_000, 9)),
    ("ResponseStartTiming", "INTEGER", skewed(93, 20_000, 6)),
    ("ResponseEndTiming", "INTEGER", skewed(94, 40_000, 6)),
    ("FetchTiming", "INTEGER", skewed(95, 30_000, 6)),
    ("SocialSourceNetworkID", "SMALLINT", sometimes(0.004, 96, "2")),
    ("SocialSourcePage", "VARCHAR", sometimes(0.002, 96, "referer", "''")),
    ("ParamPrice", "BIGINT", sometimes(0.001, 97, skewed(98, 100_000, 2))),
    ("ParamOrderID", "VARCHAR", sometimes(0.001, 97, number("i", 99, 40) + "::VARCHAR", "''")),
    ("ParamCurrency", "VARCHAR", sometimes(0.001, 97, "'RUB'", "'NH'")),
    ("ParamCurrencyID", "SMALLINT", sometimes(0.001, 97, "643")),
    *[(f"Openstat{name}", "VARCHAR", sometimes(0.002, 100, f"'{name.lower()}' || {skewed(101, 900, 3)}", "''"))
      for name in ("ServiceName", "CampaignID", "AdID", "SourceID")],
    *[(f"UTM{name}", "VARCHAR", sometimes(0.01, 102, f"'{name.lower()}' || {skewed(103, 400, 3)}", "''"))
      for name in ("Source", "Medium", "Campaign", "Content", "Term")],
    ("FromTag", "VARCHAR", sometimes(0.003, 104, f"'tag' || {skewed(105, 300, 2)}", "''")),
    ("HasGCLID", "SMALLINT", sometimes(0.004, 106, "1")),
    ("RefererHash", "BIGINT", f"CASE WHEN site = 7 AND referer = home THEN {REFERER_HASH} ELSE {number('referer', 107, 63)} END"),
    ("URLHash", "BIGINT", f"CASE WHEN site = 7 AND page = 0 THEN {URL_HASH} ELSE {number('url', 108, 63)} END"),
    ("CLID", "INTEGER", sometimes(0.03, 109, skewed(110, 2_000_000, 3))),
]  # fmt: skip


def query(first: int, behind: int) -> str:
    steps = [STEPS[0].format(first=first, behind=behind)]
    steps += [f"{step} FROM step_{number}" for number, step in enumerate(STEPS[1:])]
    named = ", ".join(f"step_{number} AS MATERIALIZED ({step})" for number, step in enumerate(steps))
    columns = ", ".join(f'CAST({value} AS {kind}) AS "{name}"' for name, kind, value in COLUMNS)
    order = '"CounterID", "EventDate", "UserID", "EventTime", "WatchID"'
    return f"WITH {named} SELECT {columns} FROM step_{len(steps) - 1} ORDER BY {order}"


def make(file: Path, rows: int) -> None:
    connection = duckdb.connect(config={"threads": 1, "memory_limit": "3GB", "temp_directory": f"{file}.spill"})
    writer = None
    unfinished = file.with_suffix(".unfinished")
    for first in range(0, rows, ROW_GROUP):
        table = connection.sql(query(first, min(first + ROW_GROUP, rows))).to_arrow_table()
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(unfinished, table.schema, compression="snappy")
        writer.write_table(table, row_group_size=ROW_GROUP)
    writer.close()
    unfinished.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.hits_data", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    begun = time.monotonic()
    make(options.file, options.rows)
    print(json.dumps({"rows": options.rows, "columns": len(COLUMNS), "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main()
