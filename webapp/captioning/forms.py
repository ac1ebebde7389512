"""The form of the page."""

from django import forms
from django.conf import settings

from webapp.photos import Photo


class PhotosInput(forms.FileInput):
    """A file input for several files."""

    allow_multiple_selected = True


class PhotosField(forms.FileField):
    """Several uploaded files. What is in them is for Pillow to say, not for their names."""

    widget = PhotosInput

    def clean(self, data, initial=None):
        return [super(PhotosField, self).clean(file, initial) for file in data or [] if file]


class PhotoForm(forms.Form):
    """Some photos, or the name of an example."""

    photos = PhotosField(required=False)
    example = forms.CharField(required=False)

    def clean_photos(self) -> list[Photo]:
        files = self.cleaned_data["photos"]
        if len(files) > settings.MAX_PHOTOS:
            raise forms.ValidationError(f"These are {len(files)} photos: send at most {settings.MAX_PHOTOS} at once.")
        return [Photo(file.read(), file.name) for file in files]

    def clean_example(self) -> Photo | None:
        name = self.cleaned_data["example"]
        if not name:
            return None
        if name not in example_names():
            raise forms.ValidationError("There is no such example: choose one of those below.")
        return Photo((settings.EXAMPLES / name).read_bytes(), name)

    def clean(self) -> dict:
        if not self.errors and not self.chosen():
            raise forms.ValidationError("Choose a photo first.")
        return self.cleaned_data

    def chosen(self) -> list[Photo]:
        """What to caption."""
        example = self.cleaned_data.get("example")
        return [*self.cleaned_data.get("photos", []), *([example] if example else [])]


def example_names() -> list[str]:
    """The files of the example photos."""
    return sorted(path.name for path in settings.EXAMPLES.glob("*.jpg"))
