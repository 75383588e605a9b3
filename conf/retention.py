"""How long what nights made is kept. Nothing is removed by itself: jobs/retain.py does it when it is run."""

from __future__ import annotations

from pydantic import Field, model_validator

from conf.strict import Name, Strict

#: What says which model serves, which stage may be skipped and who must not come back: some rows a night, of use as long as anything is there.
NEVER = ("forgotten", "models", "publications", "runs")


class Retention(Strict):
    days: dict[Name, int | None] = Field(
        default_factory=dict,
        description="table -> how many days of it to keep, the newest night's among them; null, or a table that is not named: all. Fewer than "
        "nights read are refused",
    )
    model_days: int | None = Field(
        None,
        ge=1,
        description="how many days to keep a model that neither serves, nor served before the one that does, nor is the newest candidate, since the "
        "last night that trained or published it; null: always. A kept model keeps the version of `examples` that it was trained on",
    )
    version_hours: int = Field(
        168,
        ge=168,
        description="how long a version of a table stays readable after it was written over, hours; Delta's own least is a week",
    )

    @model_validator(mode="after")
    def _can_be_kept(self) -> Retention:
        wrong = [name for name, days in self.days.items() if days is not None and days < 1]
        if wrong:
            raise ValueError(f"retention.days of {', '.join(wrong)} is below 1; give a number of days, or null to keep all")
        never = sorted(set(self.days) & set(NEVER))
        if never:
            raise ValueError(f"retention.days names {', '.join(never)}, which are always kept: nights know by them what they did")
        return self
