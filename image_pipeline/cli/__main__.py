"""``python -m image_pipeline.cli``."""

from image_pipeline.cli import main

if __name__ == "__main__":
    main()
