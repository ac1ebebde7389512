"""What a user would pick instead: BLIP-base and ViT-GPT2 of `transformers`, beside the model that ships.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.transformers_captioners

Only speed and size are compared: their weights are random, and each caption is made 12 words long, greedily for
BLIP and with beam 4 for ViT-GPT2, as their authors use them, and with beam 3 here. One photo a time, after loading,
its file read and its pixels prepared.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.drawn import draw_photos
from benchmarks.tasks import WORDS, seconds
from caption_generator.quiet import load_tensorflow


def this_project() -> tuple[Callable[[Path], object], int, int]:
    """Captions a photo; how many parameters it has; bytes on disk."""
    from caption_generator.captioner import Captioner
    from caption_generator.workspace import BUNDLED_MODEL

    captioner = Captioner.load()
    parameters = captioner.encoder.model.count_params() + captioner.checkpoint.decoder.model.count_params()
    return lambda path: list(captioner.caption_files([path])), parameters, BUNDLED_MODEL.stat().st_size


def blip_base():
    from transformers import BlipConfig, BlipForConditionalGeneration

    return _transformer(BlipForConditionalGeneration(BlipConfig()), 384, num_beams=1)


def vit_gpt2():
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), GPT2Config())
    config.decoder_start_token_id = config.pad_token_id = config.decoder.bos_token_id
    return _transformer(VisionEncoderDecoderModel(config), 224, num_beams=4)


def _transformer(model, size: int, num_beams: int) -> tuple[Callable[[Path], object], int, int]:
    import numpy as np
    import torch
    from PIL import Image

    model.eval()

    def caption(path: Path):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), np.float32)
        batch = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            return model.generate(
                pixel_values=batch, min_new_tokens=WORDS, max_new_tokens=WORDS, num_beams=num_beams, do_sample=False
            )

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return caption, parameters, sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10)
    options = parser.parse_args()
    load_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        photos = draw_photos(Path(folder), options.photos)
        print("| | seconds a photo | parameters | on disk |\n|---|---|---|---|")
        for name, load in (("this project", this_project), ("BLIP-base", blip_base), ("ViT-GPT2", vit_gpt2)):
            caption, parameters, size = load()
            caption(photos[0])
            times = sorted(seconds(lambda photo=photo, caption=caption: caption(photo)) for photo in photos)
            median = times[len(times) // 2]
            print(f"| {name} | {median:.3g} | {parameters / 1e6:.1f} million | {size / 1e6:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
