"""The caption generator as a Streamlit page: streamlit run streamlit_app.py"""

from pathlib import Path

import streamlit as st
from PIL import Image

from caption_generator.captioner import Captioner
from caption_generator.common.errors import CaptionError
from caption_generator.images import load_pixels, open_rgb
from caption_generator.search import Caption
from webapp.heat_maps import heat_map
from webapp.photos import Photo
from webapp.wording import alt_text, headline, words_of

EXAMPLES = Path(__file__).parent / "examples"


@st.cache_resource(show_spinner="Loading the model …")
def captioner() -> Captioner:
    """The captioner that ships, once for all visitors."""
    return Captioner.load()


@st.cache_data(show_spinner="Looking …", max_entries=32)
def captions(data: bytes, name: str) -> list[Caption]:
    """The captions of a photo, kept while its visitor goes from word to word."""
    photo = Photo(data, name)
    photo.check()
    pixels = load_pixels(photo.file(), captioner().engine.input_size)
    return list(captioner().caption_pixels(pixels[None])[0])


def show(key: str, name: str, data: bytes) -> None:
    """A photo, its caption, where the model looked, and other captions.

    Args:
        key: what tells its widgets from those of other photos, which may have the same name.
    """
    try:
        best, *others = captions(data, name)
        photo = open_rgb(Photo(data, name).file())
    except CaptionError as error:
        st.error(str(error))
        return
    photo.thumbnail((1200, 1200))
    left, right = st.columns([3, 2])
    with right:
        st.header(headline(best), anchor=False)
        words = [f"{word} {probability:.0%}" for word, probability in words_of(best)]
        chosen = None
        if best.attention is not None:
            chosen = st.pills("Where it looked", range(len(words)), format_func=words.__getitem__, key=f"words {key}")
        st.text_input("Alt text", alt_text(best), key=f"text {key}")
        st.metric("Score", f"{best.score:.0%}")
        st.dataframe({"Other captions": [o.text for o in others], "Score": [f"{o.score:.0%}" for o in others]})
    with left:
        if chosen is not None:
            heat = heat_map(best.attention[chosen], captioner().engine.grid, photo.size)
            heat = heat.resize(photo.size, Image.Resampling.BICUBIC)
            photo = Image.alpha_composite(photo.convert("RGBA"), heat)
        st.image(photo, caption=name, width="stretch")


st.set_page_config("Image caption generator", "📷", layout="wide")
st.title("A photo in, a sentence out", anchor=False)
uploads = st.file_uploader("Photos", accept_multiple_files=True)
if taken := st.toggle("Use the camera") and st.camera_input("Take a photo"):
    uploads = [taken, *uploads]
example = st.selectbox("Or an example", sorted(path.name for path in EXAMPLES.glob("*.jpg")), index=None)
for upload in uploads:
    show(upload.file_id, upload.name, upload.getvalue())
if example:
    show(example, example, (EXAMPLES / example).read_bytes())
