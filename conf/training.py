"""The network, how it is trained, on which rows, and how a person follows that."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from conf.strict import Name, Strict


class Sampling(Strict):
    """Negative downsampling of the training snapshot; off by default."""

    keep_negatives: dict[Name, float] = Field(
        default_factory=dict,
        description="source -> probability with which its rows without any engagement are trained on, each weighing 1 / this",
    )

    @model_validator(mode="after")
    def _are_probabilities(self) -> Sampling:
        wrong = {source: kept for source, kept in self.keep_negatives.items() if not 0 < kept <= 1}
        if wrong:
            raise ValueError(f"keep_negatives holds {wrong}; give each source a probability above 0 and at most 1")
        return self


class ModelConf(Strict):
    """The network; see models/engagement.py for the layers. Choices other than the defaults are for comparison, or for other data."""

    embedding_width: int = Field(16, ge=1, le=1024, description="numbers an embedding row")
    bottom: Literal["shared", "mmoe", "ple"] = Field(
        "shared",
        description="under the towers: one bottom for all heads, experts mixed by each head (MMoE), or also experts of its own (PLE)",
    )
    bottom_widths: tuple[int, ...] = Field((128, 64), min_length=1, description="bottom (or expert), units a layer; of PLE a level each")
    experts: int = Field(4, ge=1, le=64, description="mmoe and ple only: experts that all heads share; ple has one more a head")
    cross: Literal["none", "latent", "dcn_v2"] = Field("none", description="products of a tower's inputs, in front of its layers")
    cross_order: int = Field(2, ge=2, le=3, description="factors of the longest product")
    towers: Literal["residual", "plain"] = Field(
        "residual",
        description="a shared tower and a residual of each source's own, or towers whose layers share nothing (worse on small sources)",
    )
    tower_widths: tuple[int, ...] = Field((64, 32), min_length=1, description="each tower (shared and residual), units a layer")
    private_layers: dict[Name, Annotated[tuple[PositiveInt, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="head -> units a layer of fully connected layers of its own, on what its tower gives: for heads that the others say little "
        "about; the other heads share all layers",
    )
    affinity: bool = Field(
        True,
        description="beside the layers, products of a latent vector of the viewer (families user and context) and one of the ad, read by head and "
        "tower: see models/affinity.py",
    )
    serving: Literal["off", "additive"] = Field(
        "off",
        description="features of family serving: left out, or learned as a term beside the network, which stands at its mean in every score",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="helps on small data only")

    @field_validator("serving", mode="before")
    @classmethod
    def _a_bare_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads it as false


class Training(Strict):
    backend: Literal["horovod_spark", "horovodrun", "torch", "single"] = Field(
        "horovod_spark",
        description="who starts the ranks: Horovod as Spark tasks; Horovod's own launcher or torch.distributed as processes of the driver's "
        "machine (a CPU each, or a GPU each where there are any); single: one rank in the driver's process, whatever `ranks` says",
    )
    ranks: int = Field(2, ge=1, description="number of processes; must divide virtual_shards")
    virtual_shards: int = Field(8, ge=1, description="files of a snapshot; fixes the batches whatever the number of ranks")
    batch_size: int = Field(2048, ge=1, description="rows of a global batch; a multiple of virtual_shards")
    epochs: int = Field(1, ge=1, le=100, description="ID embeddings over-fit after the first, so 1 is the default")
    warm_epochs: int = Field(1, ge=1, le=100, description="epochs over the new days when the night starts warm")
    warm_start: bool = Field(True, description="start from the published model and train on the days after its training end")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW, dense parts; the highest, see warm_up_share")
    embedding_learning_rate: float = Field(0.2, gt=0, description="row-wise Adagrad, embedding rows; the highest")
    linear_learning_rate: float = Field(0.2, gt=0, description="Adagrad, the linear path's weights of ids; the highest")
    linear_prior_rows: float = Field(
        16, ge=0, description="a weight of an id starts as if it had met this many rows: more keeps what rare ids and events say small"
    )
    warm_up_share: float = Field(
        0.2, ge=0, lt=1, description="of the steps, over which both learning rates rise; they then fall to zero at the last step"
    )
    weight_decay: float = Field(1e-4, ge=0, description="AdamW, dense matrices")
    residual_decay: float = Field(
        1e-2,
        ge=0,
        description="AdamW decay of all that a tower has of its own; what shrinks it where it does not pay are gates: models/gates.py",
    )
    gradient_clip: float = Field(1.0, gt=0, description="largest global norm of the dense gradient")
    head_weighting: Literal["rows", "constant", "uncertainty"] = Field(
        "rows",
        description="a row counts alike in every head that knows it, or every head's mean loss counts once, or by what is learned of its noise: see "
        "models/head_weighting.py",
    )
    unknown_user_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of the training rows, those that lose all features of their user, other ones each epoch: see models/unknown_user.py",
    )
    bfloat16: Literal["gpu", "always", "never"] = Field(
        "gpu",
        description="where layers multiply in bfloat16: on GPUs, on CPUs too (faster on those with AVX512-BF16 or AMX, maybe slower on others), or "
        "nowhere; weights, tables of ids, losses and scores are float32 in any case",
    )
    start_timeout_seconds: int = Field(120, ge=5)
    stall_shutdown_seconds: int = Field(300, ge=61, description="a rank silent this long ends the job; above Horovod's 60 s warning")
    checkpoint_seconds: float = Field(
        60, ge=0, description="least time between two checkpoints, from which a killed training goes on; 0: one after every step"
    )

    def in_bfloat16(self, device: str) -> bool:
        """`device`: cuda or cpu."""
        return self.bfloat16 == "always" or (self.bfloat16 == "gpu" and device == "cuda")

    @property
    def deciding(self) -> dict[str, object]:
        """The knobs that decide what is learned: all but those of how and where it runs."""
        how = {"backend", "ranks", "start_timeout_seconds", "stall_shutdown_seconds", "checkpoint_seconds"}
        return self.model_dump(mode="json", exclude=how)

    @model_validator(mode="after")
    def _shards_divide(self) -> Training:
        if self.virtual_shards % self.ranks:
            raise ValueError(f"training.ranks is {self.ranks} and does not divide virtual_shards {self.virtual_shards}; choose a divisor")
        if self.batch_size % self.virtual_shards:
            raise ValueError(f"training.batch_size is {self.batch_size}; make it a multiple of virtual_shards {self.virtual_shards}")
        return self


class Tracking(Strict):
    """How a person follows trainings; decides nothing of what is learned, and none of it can fail a night. Needs adtower[tracking]."""

    tensorboard: bool = Field(True, description="write each training's curves as TensorBoard event files, <workdir>/tensorboard/<model>")
    mlflow_uri: str = Field(
        "", description="MLflow store that finished trainings are told to, such as sqlite:///var/mlflow.db or https://…; empty: none"
    )
    mlflow_seconds: float = Field(60, gt=0, description="a store that takes longer than this for one training is left with a warning")
    openlineage: str = Field(
        "",
        description="file that OpenLineage events of each stage are appended to, relative to the working directory; empty: none. Needs adtower[lineage]",
    )
