"""What a user would pick instead: BLIP-base and ViT-GPT2 of `transformers`, beside the model that ships.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.transformers_captioners

Only speed and size are compared: their weights are random, and each caption is made 12 words long, greedily for
BLIP and with beam 4 for ViT-GPT2, as their authors use them, and with beam 5 here. One photo a time, after loading,
its file read and its pixels prepared.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.drawn import draw_photos
from benchmarks.tasks import WORDS, seconds


def this_project() -> tuple[Callable[[Path], object], int, int]:
    """Captions a photo; how many parameters it has; bytes on disk."""
    from caption_generator.common.console import load_tensorflow

    load_tensorflow()
    from caption_generator.captioner import Captioner
    from caption_generator.checkpoint import load_checkpoint
    from caption_generator.workspace import BUNDLED_MODEL

    checkpoint = load_checkpoint(BUNDLED_MODEL)
    parameters = checkpoint.network.count_params()
    detector = checkpoint.detector  # no Keras model
    parameters += detector.mean.size + detector.weights.size + detector.document_frequency.size
    if classifier := checkpoint.classifier:
        parameters += classifier.kernel.size + classifier.bias.size
    captioner = Captioner.load()
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


MODELS = {"this project": this_project, "BLIP-base": blip_base, "ViT-GPT2": vit_gpt2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--only", choices=MODELS)
    options = parser.parse_args()
    if options.only:
        print(row(options.only, options.photos))
        return
    if missing := [name for name in ("torch", "transformers") if find_spec(name) is None]:
        parser.error(f"{' and '.join(missing)} not installed: pip install -r benchmarks/requirements.txt")
    print("| | a photo | parameters | on disk |\n|---|---|---|---|", flush=True)
    for name in MODELS:  # a process each: TensorFlow and PyTorch cannot always share one
        command = [sys.executable, "-m", "benchmarks.transformers_captioners", "--only", name]
        subprocess.run([*command, "--photos", str(options.photos)], check=True)


def row(name: str, count: int) -> str:
    caption, parameters, size = MODELS[name]()
    with tempfile.TemporaryDirectory() as folder:
        photos = draw_photos(Path(folder), count)
        caption(photos[0])
        median = statistics.median(seconds(lambda photo=photo: caption(photo)) for photo in photos)
    return f"| {name} | {1000 * median:.0f} ms | {parameters / 1e6:.1f} million | {size / 1e6:.0f} MB |"


if __name__ == "__main__":
    main()
