"""Dream: Qwen2 without a causal mask, whose output at a position predicts the next one."""

from weft_rl.families.base import Family, Sizes
from weft_rl.families.fields import RATE

_CODE = "Dream-org/Dream-v0-Instruct-7B"

DREAM = Family(
    name="dream",
    model_types=("Dream", "dream"),
    transformers_type="qwen2",
    architectures=("DreamModel", "Qwen2ForCausalLM"),
    network="weft_rl.models.modeling_dream:DreamForMaskedLM",
    published={"dream_7b": _CODE},
    # Dream-7B and Qwen2.5-7B. Source: the published configuration.
    published_sizes=Sizes(152064, 3584, 28, 28, 4, 18944),
    license="apache-2.0",
    mask_token="<|mask|>",
    end_of_turn="<|im_end|>",
    end_of_turn_id=151645,
    remote_code={  # source: the published configuration
        "AutoConfig": f"{_CODE}--configuration_dream.DreamConfig",
        "AutoModel": f"{_CODE}--modeling_dream.DreamModel",
    },
    biases=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    kinds={"attention_dropout": RATE},
    defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "mask_token_id": 151666,
        "pad_token_id": 151643,
    },
    fixed={"tie_word_embeddings": False},
    # Qwen2's sliding-window options, which upstream's code does not read
    ignored=("sliding_window", "max_window_layers", "layer_types"),
    scaled_positions=True,
    tokenizer="Qwen2Tokenizer",
    needs_generation_config=True,
)
