"""What adversarial training costs and which models it takes: one command per question.

    python -m benchmarks.hardware.step_time       # seconds, against GRPO with a frozen classifier
    python -m benchmarks.hardware.memory          # memory by model, precision and part of a step; docs/memory.md
    python -m benchmarks.hardware.gpu             # 4-bit 7B against 0.4B on a GPU
    python -m benchmarks.hardware.quantised_pair  # both models in 4-bit, saved and loaded again
    python -m benchmarks.hardware.architectures   # families and precisions; docs/supported_models.md
    python -m benchmarks.hardware.scale           # many GPUs, computed; docs/many_processes.md
    python -m benchmarks.hardware.guided_cost     # guided against plain sampling
    python -m benchmarks.hardware.prepare_cost    # a dataset prepared, against one that is only tokenised
    python -m benchmarks.hardware.batch_path      # files and calls on the way of a batch

Each of them has its own `--help`.
"""

if __name__ == "__main__":
    print(__doc__)
