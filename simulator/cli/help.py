"""What options are called, and what the help says of them and of arguments, by their names."""

from collections.abc import Mapping

# How options are spelt that have other names than their values, or several.
SPELT: Mapping[str, str] = {
    "model": "--model -m",
    "gpu": "--gpu --hardware -g",
    "context_tokens": "--context-tokens --context --input-len",
    "samples": "--samples --num-samples -n",
    "prompts": "--prompts --batch-size",
    "decoded_tokens": "--decoded-tokens --decoded",
    "output_tokens": "--output-tokens --output-len",
    "users": "--users --concurrency",
    "dtype": "--dtype --weight-dtype",
    "kv_dtype": "--kv-dtype --kv-cache-dtype",
    "tensor_parallel": "--tensor-parallel-size --tensor-parallel --tp",
    "data_parallel": "--data-parallel-size --data-parallel --dp",
    "expert_parallel": "--expert-parallel-size --expert-parallel --ep",
    "pipeline_parallel": "--pipeline-parallel-size --pipeline-parallel --pp",
    "max_batched_tokens": "--max-batched-tokens --max-num-batched-tokens",
    "most_sequences": "--max-num-seqs",
    "tensor_parallel_sizes": "--gpus",
    "families": "--family",
    "size_factors": "--size-factor",
    "problem_counts": "--counts",
    "longest_context_tokens": "--longest-context",
    "part": "--rows",
    "kinds": "--only",
    "kernels": "--kernel",
    "shape": "--shape -s",
    "inputs": "--input -i",
    "format_name": "--format",
    "as_json": "--json",
    "output": "--output -o",
    "folder": "--output -o",
    "show_list": "--list",
}
# What the help says, where it does not fit beside the option.
HELP: Mapping[str, str] = {
    "model": "Model, as in 'bifurcate models'; as often as you like.",
    "scenario": "Scenario (see 'bifurcate scenarios') or a TOML file; options replace its own. Or "
    "a model, and the options of a question.",
    "samples": "Sequences sampled from each context. Default: 16; with --batch-size, and of a "
    "request under load, 1.",
    "prompts": "Distinct contexts decoded together; alone, that many sequences. Default: 1.",
    "tree": "What contexts share, from the root down, instead of both: system=2K,problem=512x8 is "
    "2048 tokens above 8 problems of 512.",
    "output_tokens": "Tokens each sample generates: the step asked about is the last, the "
    "longest. Default of whole requests: 256.",
    "accepted_tokens": "Of those, how many are kept on average; generate takes its steps by it.",
    "kernel": "Attention kernel, or that of an engine.",
    "kv_layout": "How standard attention stores the context: a copy per sample, one for all, or "
    "one that is concatenated anew on every step.",
    "execution": "CUDA graph as engines use, compiled, or plain eager PyTorch.",
    "quantization": "The same; beside it --dtype may name a format of 16 bits, as in engines.",
    "data_parallel": "Groups of such GPUs with requests of their own, which share the experts. "
    "Default: 1.",
    "expert_parallel": "Parts into which whole experts are dealt out over the GPUs of all groups. "
    "Default: 1, every GPU has a slice of each.",
    "routing": "How tokens choose a model's experts: in turn, at random, or by a power law.",
    "routing_exponent": "Exponent of skewed routing, between 1 and 2.",
    "latent_form": "Latent attention (MLA): absorbed, expanded to every head, or mixed: shared "
    "context expanded, own tokens absorbed. auto takes the faster of absorbed and mixed.",
    "gpu_memory_utilization": "Share of the card's memory that may be used.",
    "engine": "Your engine, or none for a loop of your own: whose meaning that share has (vLLM's, "
    "SGLang's --mem-fraction-static, TensorRT-LLM's free_gpu_memory_fraction), whose switch "
    "compare names. SGLang and TensorRT-LLM quantise activations in the kernel before.",
    "max_batched_tokens": "Tokens of the largest prefill batch, for which engines keep memory. "
    "Default: 8192 on cards of 70 GiB and more (TensorRT-LLM: on all), else 2048.",
    "gpu": "GPU (see 'bifurcate gpus') or a profile's path.",
    "price_per_hour": "Price of one GPU in USD per hour, instead of the profile's.",
    "cached_tokens": "Under load: tokens of each prompt that are stored when it arrives. Default: "
    "those of a --tree's levels above the last.",
    "most_sequences": "Under load: sequences that the engine decodes together. Default: 1024.",
    "check": "Exit with 3 if it does not fit or the target is not met.",
    "explain": "Show each formula with the numbers in it and its reference.",
    "figure": "Draw it too: .html, .png, .svg, .pdf, or .json as Plotly reads it.",
    "constants": "Constants of the timing model: the best known, those of other cards, or bare "
    "peaks.",
    "percentile": "Under load: percentage of requests within these times, in place of the means.",
    "rule": "Also what a serving engine's rule would choose, and what that costs.",
    "tensor_parallel_sizes": "Tensor-parallel size to try, as often as you like. Default: 1, 2, "
    "4, 8.",
    "prices": "TOML file of your own prices: lines GPU = USD per hour, the default GPUs.",
    "requests_per_s": "Under load: requests that arrive in a second, at random.",
    "ttft_ms": "Under load: longest acceptable time to the first token, the mean.",
    "tpot_ms": "Under load: longest acceptable time per output token after it, the mean.",
    "users": "Under load: users who ask again at once. Default of serve: powers of two up to what "
    "it holds.",
    "training_runs": "CSV of training runs: parameters, loss, and kv_heads with heads, group_size "
    "or family; study and tokens tell sets apart.",
    "target_kv_heads": "KV heads of a model to compare with, as often as you like. Default: 1.",
    "size_factors": "Its parameters over the model's at equal quality, one for each model; "
    "'paper' is the paper's (multi-query 1.10). Default: that of --runs, else that of published "
    "runs, by family and --scale-by.",
    "runs": "Training runs to fit the size factors to (see 'bifurcate scaling').",
    "scale_by": "What makes the other models larger. Default: width, or the first of mlp and "
    "heads if published runs of the family are matched so alone.",
    "most_samples": "Most samples to look for the crossover at. Default: 1024.",
    "longest_context_tokens": "Longest context to look for it at. Default: 128K.",
    "success_rate": "Probability that a single sample is right; or give --counts.",
    "target_request_s": "Longest acceptable request, with --output-tokens.",
    "output": "File to write: .html, .png, .svg, .pdf, or .json as Plotly reads it. Default: "
    "FIGURE.html.",
    "files": "Files to check. Default: all.",
    "target": "MODULE:FUNCTION, FILE.py:FUNCTION, or a kernel's name.",
    "shape": "A size of its tensors; repeatable: samples=16, context_tokens=8K.",
    "inputs": "A tensor to call it with, instead of the five of a kernel: samples,heads,128 or "
    "16,4096:int64.",
    "layout": "How the caches lie. Default: as a kernel wants them, shared for a function.",
    "l2": "L2 before a call: cold rotates over buffers larger than it.",
    "dtype": "Format of weights, caches and activations. Default: bf16.",
    "query_tokens": "Query tokens of each sample, as often as you like. Default: 1, or the "
    "scenario's.",
    "device": "cpu tries everything on small shapes.",
    "retry": "Measure rows of this status again, as often as you like.",
    "time_limit": "Start nothing new after this many minutes.",
    "folder": "Folder of the rows; a run there is continued.",
    "rows": "Files of measured rows (.csv, .parquet), results of serving clients (.json, .jsonl), "
    "folders of rows, or synthetic ones that ship: sample, and sample-runs under load.",
    "engine of rows": "Engine of runs under load whose client names none, or only its interface "
    "(openai).",
    "keep_suspect": "Keep rows that break physics but have a time.",
    "gpu of validate": "Use only this GPU's rows; also the GPU of rows that name none.",
    "output of validate": "Every row with its prediction (.csv, .parquet), the report (.json) or "
    "the figure (.html).",
    "scenario of measure": "Scenario (see 'bifurcate scenarios') or a TOML file. Default: the "
    "paper's regime on 7B shapes, under 25 minutes.",
    "gpu of measure": "Profile to predict with. Default: the one of this card's name.",
    "model of a question": "Preset (see 'bifurcate models'), config.json, folder with one, or "
    "Hugging Face id.",
    "execution of trace": "Launched one by one, or in a CUDA graph.",
    "users of tradeoff": "Also serve this many users, who ask again as soon as they have their "
    "answer.",
}
