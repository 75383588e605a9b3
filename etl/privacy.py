"""What is known of people: user ids as keyed hashes, and the ids that must not come back.

A user id is replaced at ingest by HMAC-SHA256 (RFC 2104) of it, under a key that is in the environment alone, cut to 128 bits: who has the
tables and not the key cannot tell whose rows they are, nor try ids out. The same key gives the same hash, so joins, counts and features work.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.schema import Conf
from conf.source import Source
from etl.expressions import Expression, references
from etl.schemas import FORGOTTEN
from etl.tables import append, frame_of, read, table_stands

KEY_VARIABLE = "ADTOWER_USER_KEY"
LEAST_KEY_BYTES = 16
BLOCK_BYTES = 64  # of SHA-256
KEPT_DIGITS = 32  # of the hash, hexadecimal
FORGOTTEN_REASON = "forgotten_user"
WITHHELD = "(withheld: it may name a user)"


def user_key(conf: Conf) -> bytes | None:
    """The key of user ids, None where they are kept as they come. ConfError if it is needed and not there, or too short to be one."""
    if not conf.privacy.hash_user_ids:
        return None
    key = os.environ.get(KEY_VARIABLE, "").encode()
    if len(key) < LEAST_KEY_BYTES:
        found = f"has {len(key)} bytes" if key else "is not set"
        raise ConfError(
            f"privacy.hash_user_ids is on, and the environment variable {KEY_VARIABLE} {found}: set it to a secret of {LEAST_KEY_BYTES} bytes or "
            "more, the same one every night (`openssl rand -hex 32` makes one)"
        )
    return key


def key_name(conf: Conf) -> str:
    """What tells one key from another without telling the key; empty where ids are kept as they come."""
    key = user_key(conf)
    return hashed(key, "name of the key")[:12] if key else ""


def hashed(key: bytes, user_id: str) -> str:
    """As `with_hashed` does it: for ids that a person names."""
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()[:KEPT_DIGITS]


def with_hashed(rows: DataFrame, key: bytes, name: str) -> DataFrame:
    """`name` as its keyed hash; null and blank stay, for the row rules to judge.

    The key comes in as a row of data and not as a literal: Spark shows literals in plans, in its pages and in its event log.
    """
    long = hashlib.sha256(key).digest() if len(key) > BLOCK_BYTES else key
    pads = [bytes(byte ^ mask for byte in long.ljust(BLOCK_BYTES, b"\0")) for mask in (0x36, 0x5C)]
    keys = rows.sparkSession.createDataFrame([(bytearray(pads[0]), bytearray(pads[1]))], "__inner BINARY, __outer BINARY")
    value = F.col(name)
    inner = F.unhex(F.sha2(F.concat("__inner", F.encode(value, "UTF-8")), 256))
    whole = F.left(F.sha2(F.concat(F.col("__outer"), inner), 256), F.lit(KEPT_DIGITS))
    told = F.when(F.length(F.trim(value)) > 0, whole).otherwise(value)
    return rows.crossJoin(F.broadcast(keys)).withColumn(name, told).drop("__inner", "__outer")


def columns_that_name_users(spark: SparkSession, source: Source, raw: Sequence[str]) -> set[str]:
    """The raw columns from which a block's user_id is made, by way of its derived columns too."""
    known, asked = set[str](), [source.columns.get("user_id", "null")]
    derived = {name.lower(): text for name, text in source.derive.items()}
    while asked:
        for name in references(spark, Expression("user_id", asked.pop()), [*raw, *derived]) - known:
            known.add(name)
            asked += [derived[name]] if name in derived else []
    return {name for name in raw if name.lower() in known}


def forgotten_ids(spark: SparkSession, conf: Conf) -> DataFrame | None:
    """user_id of everyone who was forgotten, one row each; None of nobody."""
    found = read(spark, conf.workdir, FORGOTTEN).select("user_id").distinct()
    return None if found.isEmpty() else found


def forgotten_mark(spark: SparkSession, conf: Conf) -> str:
    """Changes as people are forgotten; empty before the first, and where no table is yet."""
    if not table_stands(spark, conf.workdir, FORGOTTEN):
        return ""
    found = read(spark, conf.workdir, FORGOTTEN).select(
        F.count_distinct("user_id").alias("ids"), F.bit_xor(F.xxhash64("user_id")).alias("mark")
    )
    row = found.collect()[0]
    return f"{row['ids']}:{row['mark']}" if row["ids"] else ""


def remember(spark: SparkSession, conf: Conf, ids: Iterable[str], run_id: str, **stamps: object) -> None:
    """Add ids, as the tables have them, to those that ingest sets aside."""
    append(frame_of(spark, [{"user_id": one, "run_id": run_id, **stamps} for one in ids], FORGOTTEN), conf.workdir, FORGOTTEN)


def is_forgotten(rows: DataFrame, forgotten: DataFrame | None) -> tuple[DataFrame, Column]:
    """The rows, and the predicate that their user was forgotten."""
    if forgotten is None:
        return rows, F.lit(False)
    known = forgotten.select(F.col("user_id").alias("__forgotten"))
    return rows.join(F.broadcast(known), F.col("user_id") == F.col("__forgotten"), "left"), F.col("__forgotten").isNotNull()
