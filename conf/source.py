"""A block of `sources`: one log or file set of a feed, read as rows of one canonical table."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from conf.strict import Name, Strict

Kind = Literal["impressions", "engagements", "users", "ads", "inventory"]

#: {day} or {day:format} in a path; the group is the format, empty for the ISO date.
DAY_IN_PATH = re.compile(r"\{day(?::([^{}]*))?\}")

#: Reader options that say how lines are written. None changes what becomes of a broken one, or which columns and files are read.
READER_OPTIONS: dict[str, tuple[str, ...]] = {
    "csv": (
        *("header", "sep", "delimiter", "quote", "escape", "charToEscapeQuoteEscaping", "comment", "encoding", "charset", "lineSep"),
        *("multiLine", "nullValue", "emptyValue", "nanValue", "positiveInf", "negativeInf", "unescapedQuoteHandling", "maxColumns"),
        *("ignoreLeadingWhiteSpace", "ignoreTrailingWhiteSpace", "dateFormat", "timestampFormat", "timestampNTZFormat", "locale"),
    ),
    "json": (
        *("encoding", "lineSep", "multiLine", "allowComments", "allowUnquotedFieldNames", "allowSingleQuotes", "allowNumericLeadingZeros"),
        *("allowBackslashEscapingAnyCharacter", "allowUnquotedControlChars", "allowNonNumericNumbers", "primitivesAsString"),
        *("dateFormat", "timestampFormat", "timestampNTZFormat", "locale"),
    ),
    "parquet": ("datetimeRebaseMode", "int96RebaseMode"),
    "avro": ("datetimeRebaseMode",),
    "delta": (),
}


class Source(Strict):
    """One log or file set of a feed -> rows of one canonical table.

    Expressions are Spark SQL over the raw columns; they come from configuration files only, never from the command line, and may call
    what etl/expressions.py lists.
    """

    kind: Kind
    source: Name = Field(description="the feed these rows belong to; several blocks may feed one")
    files: str = Field(
        description="path or glob ({a,b} for either); {landing}: landing folder, {cache}: user cache, {day}: day of delivery (of an inventory: "
        "day scored) as 2026-05-14, {day:%Y/%m/%d} or {day:%Y%m%d} as written; *.gz is unpacked; of a delta source the table's folder"
    )
    format: Literal["json", "csv", "parquet", "avro", "delta"]
    options: dict[str, str] = Field(default_factory=dict, description="how a line is written, such as header or sep: READER_OPTIONS")
    raw_schema: str = Field(
        "",
        description="DDL of the raw columns, found by name in files that carry names; a line that does not fit it is unreadable, a file that "
        "lacks one of them too. Empty: those of the first file or table, or of a CSV file's header",
    )
    derive: dict[Name, str] = Field(
        default_factory=dict,
        description="name -> expression over the raw columns of all rows of the block, before `where`; windows allowed, and with daily files a "
        "window sees only the files that this run reads. The names may be used further down here, in `where` and in `columns`",
    )
    where: str = Field("", description="predicate over raw and derived columns: rows for which it is not true are none of this block's")
    time_zone: str = Field("UTC", description="zone of clocks that carry no offset; applied to every timestamp column of this block")
    required: bool = Field(
        True, description="a required block without files stops the night (exit 3); an optional one leaves the day empty"
    )
    damaged_files: Literal["stop", "quarantine"] = Field(
        "stop",
        description="a file that cannot be read (cut, damaged, without a column of raw_schema) stops the night (exit 3), or is set aside as one "
        "row of the quarantine with reason unreadable_file",
    )
    max_quarantined_share: float | None = Field(
        None, ge=0, le=1, description="of this block's rows in; more stops the night at the gate. None: gate.max_quarantined_share"
    )
    columns: dict[Name, str] = Field(
        min_length=1,
        description="canonical column -> expression over raw and derived columns, _file (base name) and _path among them; a value that does "
        "not convert to the column's type puts the row into quarantine",
    )

    @property
    def daily(self) -> bool:
        """Whether the files are one set a day, told apart by {day} in their path."""
        return bool(DAY_IN_PATH.search(self.files))

    @model_validator(mode="after")
    def _lines_have_a_shape(self) -> Source:
        if self.format == "json" and not self.raw_schema:
            raise ValueError(
                "a json source needs raw_schema, the DDL of its raw columns, so that a broken line can be told from a good one"
            )
        return self

    @model_validator(mode="after")
    def _options_say_only_how_lines_are_written(self) -> Source:
        known = READER_OPTIONS[self.format]
        for option in self.options:
            if option.lower() not in {name.lower() for name in known}:
                raise ValueError(
                    f"options.{option} is none of a {self.format} source's: {', '.join(known) or 'it has none'}. What a broken line, an unknown "
                    "column or a path means is the same for every source"
                )
        return self

    @model_validator(mode="after")
    def _days_can_be_read_back(self) -> Source:
        formats = DAY_IN_PATH.findall(self.files)
        if formats and not any(sorted(re.findall("%.", form or "%Y%m%d")) == ["%Y", "%d", "%m"] for form in formats):
            raise ValueError(f"files: {self.files} has no whole day; write {{day}}, or %Y, %m and %d once each, as in {{day:%Y/%m/%d}}")
        unknown = sorted({code for form in formats for code in re.findall("%.", form)} - {"%Y", "%m", "%d"})
        if unknown or "{day" in DAY_IN_PATH.sub("", self.files):
            raise ValueError(f"files: {self.files} has a day that cannot be read; use {{day}} or {{day:…}} with %Y, %m and %d")
        return self
