"""`python -m hf_mgan.cli`, which `accelerate launch -m` needs."""

from .main import main


if __name__ == "__main__":
    main()
