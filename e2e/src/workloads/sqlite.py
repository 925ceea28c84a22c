# One transaction per tick in write-ahead mode, whose index is a shared mapping; sums are kept in memory as well.
import sqlite3

db = sqlite3.connect("/data/base.sqlite", isolation_level=None)
db.execute("pragma journal_mode = wal")
db.execute("pragma synchronous = normal")
db.execute("create table if not exists t (n integer primary key, twice integer)")


def step(i):
    db.execute("begin immediate")
    db.execute("insert into t values (?, ?)", (i, 2 * i))
    db.execute("commit")
    got = db.execute("select count(*), max(n), sum(twice) from t").fetchone()
    check(got == (i, i, i * (i + 1)), f"tick {i}: the table says {got}")
    if i % 50 == 0:
        got = db.execute("pragma integrity_check").fetchone()
        check(got == ("ok",), f"tick {i}: {got}")


run(step)
