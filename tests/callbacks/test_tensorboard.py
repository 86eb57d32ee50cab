"""Files of events, read back by a decoder of their own format."""

import os
import struct

import numpy as np
import pytest

import gradring as gr
from gradring.callbacks.tensorboard import crc32c


def records(content):
    """The events of a file, whose checksums are right."""
    while content:
        (length,), (crc,) = struct.unpack("<Q", content[:8]), struct.unpack("<I", content[8:12])
        event, content = content[12 : 12 + length], content[12 + length :]
        for part, masked in ((struct.pack("<Q", length), crc), (event, struct.unpack("<I", content[:4])[0])):
            turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
            assert (turned >> 17 | turned << 15) & 0xFFFFFFFF == crc32c(part)
        content = content[4:]
        yield dict(fields(event))


def fields(message):
    """(number, value) of each field of a protocol-buffer message."""

    def varint():
        nonlocal message
        number = shift = 0
        while True:
            byte, message = message[0], message[1:]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while message:
        key = varint()
        size = {0: 0, 1: 8, 2: 0, 5: 4}[key & 7]
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = size or varint()
        part, message = message[:size], message[size:]
        yield key >> 3, part if key & 7 == 2 else struct.unpack("<d" if size == 8 else "<f", part)[0]


def test_the_curves_of_a_run(trainer, data, tmp_path):
    folder = tmp_path / "made" / "for it"
    history = trainer.fit(data, epochs=3, validate=data, callbacks=[gr.callbacks.TensorBoard(folder)])
    (name,) = os.listdir(folder)
    assert "tfevents" in name
    first, *events = records((folder / name).read_bytes())
    assert first[3] == b"brain.Event:2"
    assert [event[2] for event in events] == [trainer.step_count // 3 * n for n in (1, 2, 3)]
    assert all(event[1] > 1.6e9 for event in events)
    for number, event in enumerate(events):
        values = [dict(fields(value)) for _, value in fields(event[5])]
        assert [value[1].decode() for value in values] == list(history.metrics)
        for value in values:
            assert value[2] == pytest.approx(history.metrics[value[1].decode()][number], rel=1e-6)


def test_each_run_has_a_file(trainer, data, tmp_path):
    board = gr.callbacks.TensorBoard(tmp_path)
    for _ in range(2):
        trainer.fit(data, callbacks=[board])
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("value", [1e300, float("inf"), float("nan")])
def test_values_that_are_no_single_precision_numbers(value, tmp_path):
    def step(params, batch):
        return value, {"w": params["w"]}

    trainer = gr.Trainer(step=step, params={"w": np.ones(1)}, optimizer=gr.optim.SGD(0.1), nonfinite="ignore")
    trainer.fit(range(1), callbacks=[gr.callbacks.TensorBoard(tmp_path)])
    (path,) = tmp_path.iterdir()
    event = list(records(path.read_bytes()))[1]
    values = {entry[1]: entry[2] for entry in (dict(fields(part)) for _, part in fields(event[5]))}
    np.testing.assert_equal(values[b"loss"], value if value != 1e300 else float("inf"))


def test_an_unwritable_folder_is_known_before_the_training(trainer, data, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        trainer.fit(data, callbacks=[gr.callbacks.TensorBoard(tmp_path / "file")])
    assert trainer.step_count == 0
