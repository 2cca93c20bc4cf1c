"""Writes spec/fixtures/images.lua: images that Pillow scales and decodes, with which images_spec.lua compares.

usage: make_image_fixture.py [DIRECTORY]     (needs Pillow; the format is described in spec/fixtures/README.md)
"""
import io
import pathlib
import sys
import textwrap

from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent

# name, size of the image, crop of it or None, size after scaling, crop of that or None; crops are x, y, width, height
CASES = [
    ("smaller", (13, 9), None, (5, 4), None),
    ("larger", (5, 4), None, (8, 7), None),
    ("much smaller", (101, 67), None, (3, 2), None),
    ("to a pixel", (30, 40), None, (1, 1), None),
    ("one way only", (9, 6), None, (9, 3), None),
    ("of the same size", (4, 3), None, (4, 3), None),
    ("a part", (40, 30), (7, 5, 22, 19), (6, 5), None),
    ("a part of the result", (40, 30), None, (17, 13), (5, 6, 4, 3)),
    ("a part of a part of the result", (40, 30), (1, 3, 38, 27), (21, 9), (16, 0, 5, 4)),
]


def painted(width, height):
    """Irregular bytes that the spec can compute, too."""
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            image.putpixel((x, y), tuple((x * x * 7 + y * 31 + x * y * 3 + c * 85) % 256 for c in range(3)))
    return image


def smooth(width, height):
    """An image that JPEG hardly changes."""
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            image.putpixel((x, y), (60 + 4 * x, 60 + 5 * y, 200 - 3 * x - 2 * y))
    return image


def part(box):
    x, y, width, height = box
    return (x, y, x + width, y + height)


def numbers(image, indent):
    pad = " " * indent
    return textwrap.fill(", ".join(str(v) for v in image.tobytes()), 116, initial_indent=pad, subsequent_indent=pad)


def box_field(name, box):
    return f", {name} = {{ {', '.join(map(str, box))} }}" if box else ""


def scaling_case(name, size, taken, scaled, window):
    image = painted(*size)
    if taken:
        image = image.crop(part(taken))
    image = image.resize(scaled, Image.BILINEAR)
    if window:
        image = image.crop(part(window))
    fields = f"size = {{ {size[0]}, {size[1]} }}{box_field('from', taken)}, width = {scaled[0]}, height = {scaled[1]}"
    return f'    {{ name = "{name}", {fields}{box_field("window", window)}, pixels = {{\n{numbers(image, 6)},\n    }} }},\n'


def jpeg_case(name, image, **options):
    """The file in hexadecimal, and torchvision's Resize(16) and CenterCrop(14) of it, on Pillow's images."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    read = Image.open(file).convert("RGB")
    width, height = read.size
    short = min(width, height)
    read = read.resize((int(16 * width / short), int(16 * height / short)), Image.BILINEAR)
    left, top = round((read.width - 14) / 2), round((read.height - 14) / 2)
    read = read.crop((left, top, left + 14, top + 14))
    code = textwrap.fill(file.getvalue().hex(), 110)
    lines = " ..\n".join(f'      "{line}"' for line in code.split("\n"))
    return f'    {{ name = "{name}", width = {width}, height = {height}, jpeg =\n{lines}, pixels = {{\n{numbers(read, 6)},\n    }} }},\n'


def png():
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    return file.getvalue().hex()


def main():
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "fixtures"
    jpegs = [
        jpeg_case("colour", smooth(41, 30), quality=95),
        jpeg_case("progressive", smooth(30, 41), quality=95, progressive=True),
        jpeg_case("grey", smooth(33, 27).convert("L"), quality=95),
        jpeg_case("inverted CMYK", smooth(27, 33).convert("CMYK"), quality=95),
    ]
    with open(directory / "images.lua", "w", encoding="ascii") as file:
        file.write("-- Made by spec/make_image_fixture.py; described in README.md.\nreturn {\n  scaled = {\n")
        file.writelines(scaling_case(*case) for case in CASES)
        file.write("  },\n  jpegs = {\n")
        file.writelines(jpegs)
        file.write(f'  }},\n  png = "{png()}",\n}}\n')


main()
