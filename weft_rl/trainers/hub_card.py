"""Model cards and uploads of the trainers."""

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import Trainer

from weft_rl.checkpoints.hub import hub_errors
from weft_rl.checkpoints.lora_merge import require_hub_base
from weft_rl.checkpoints.model_card import CARD, ModelFacts, Score, Stage, describe_base, make_card


class HubCard(Trainer):
    """Mixin that writes weft-rl's model card and uploads it with the weights."""

    card_arguments: tuple[str, ...] = ()  # names of args in the card
    card_evaluation = ""  # how evaluate() measures

    @property
    def method_label(self) -> str:
        """Name of the training method in the card."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """The output directory."""
        return Path(str(self.args.output_dir))

    def create_model_card(self, *_: Any, **options: Any) -> None:
        """Write README.md into output_dir, on the first process.

        options: model_name; dataset, Hub ids of the training data; tags, beside the card's own.
        Other options of transformers and TRL have no effect."""
        if self.is_world_process_zero():
            make_card(self._model_facts(options)).save(self.folder / CARD)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Save the model, write its card, and upload both; arguments: transformers.Trainer's.

        Raises ValueError for an adapter on a local base, without a valid token, and for an
        unreachable Hub."""
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, PeftModel):
            fix = f"save_model(), then weft-rl push {self.folder} merged=true repo=OWNER/NAME"
            require_hub_base(_adapter(model)[0], "push_to_hub()", fix)
        with hub_errors(self.args.hub_model_id or self.folder.name):
            return super().push_to_hub(*args, **kwargs)

    def _model_facts(self, options: Mapping[str, Any]) -> ModelFacts:
        model: Any = self.accelerator.unwrap_model(self.model)
        is_adapter = isinstance(model, PeftModel)
        base, lora = _adapter(model) if is_adapter else (model.name_or_path, {})
        arguments = {name: getattr(self.args, name) for name in self.card_arguments}
        steps = {"steps": self.state.global_step}
        scores, data = self._scores(), []
        datasets = _listed(options.get("dataset") or options.get("dataset_name"))
        if isinstance(self.train_dataset, Sized):
            source = f" of {', '.join(datasets)}" if datasets else ""
            data = [f"Data: {len(self.train_dataset)} examples{source}."]
        name = options.get("model_name") or self.folder.name
        return ModelFacts(
            self.hub_model_id or self.args.hub_model_id or name,
            *(describe_base(base) if base else ("a model built in memory", None)),
            adapter=is_adapter,
            stages=[Stage(self.method_label, steps | arguments | lora)],
            data=data,
            datasets=datasets,
            scores=scores,
            evaluation=self.card_evaluation,
            limits=["The scores are of one training run."] if scores else [],
            tags=_listed(options.get("tags")),
        )

    def _scores(self) -> list[Score]:
        """The newest held-out rewards and bounds in the log; 95% intervals where it has errors."""
        latest: dict[str, float] = {}
        for row in self.state.log_history:
            latest |= {name: value for name, value in row.items() if name.startswith("eval_")}
        scores = []
        for name, value in latest.items():
            error = latest.get(f"{name}_se")
            width = 1.96 * (error or 0.0)  # 95% of a normal distribution
            interval = None if error is None else (value - width, value + width)
            if interval or name == "eval_reward":
                metric, label = name.removeprefix("eval_"), self.method_label
                scores += [Score(label, "evaluate()", metric, value, interval, None, False, True)]
        return scores


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else [*(names or ())]


def _adapter(model: PeftModel) -> tuple[str, dict[str, object]]:
    """Base and options of the adapter."""
    (config,) = list[Any](model.peft_config.values())
    options = {"lora.r": config.r, "lora.alpha": config.lora_alpha}
    return str(config.base_model_name_or_path or ""), options
