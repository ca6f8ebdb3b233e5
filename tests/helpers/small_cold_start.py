"""A small cold start: model, arguments, examples and trainer."""

from transformers import TrainerCallback

from weft_rl.config.schema import BaseConfig
from weft_rl.data.sft_examples import encode_traces
from weft_rl.data.toy import cold_start_traces
from weft_rl.diffusion.recipes import Recipe
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import tiny_config, tiny_tokenizer
from weft_rl.trainers.cold_start_config import ColdStartConfig
from weft_rl.trainers.infra.resumable_trainers import ResumableColdStart

SEED = 7


def small_model():
    size = BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    return fresh_model(tiny_config(size), 0)


def arguments(folder, **changes):
    """Six steps, a metric line per step, a checkpoint after three, silent, on CPU."""
    options = {
        "output_dir": str(folder / "scratch"),
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 3,
        "logging_nan_inf_filter": False,
        "seed": SEED,
    }
    return ColdStartConfig(**options | changes)


def examples(count=8):
    end = small_model().config.eot_token_id
    return encode_traces(cold_start_traces(count, 0), tiny_tokenizer(), "tiny", end, 200)[0]


def recipe(rates="uniform", token_weights="none", exact_elbo=False, loss_norm="answer"):
    return Recipe("test", "test", rates, token_weights, loss_norm=loss_norm, exact_elbo=exact_elbo)


def trainer(folder, *method, batch=4, accumulate=1, model=None, **options):
    """method: as for recipe. options: of the trainer and of ColdStartConfig."""
    fields = {*ColdStartConfig.__dataclass_fields__} - {"recipe"}
    named = {key: options.pop(key) for key in [*options] if key in fields}
    args = arguments(
        folder, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate, **named
    )
    given = {
        "train_dataset": examples(),
        "processing_class": tiny_tokenizer(),
        "recipe": recipe(*method),
        "run": folder,
        "stage": "sft",
    }
    return ResumableColdStart(model=model or small_model(), args=args, **given | options)


def logs(trainer):
    names = ("loss", "grad_norm", "mask_fraction", "beta_ref")
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [[row[name] for name in names] for row in rows]


def stop_after(step):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == step

    return Stop()
