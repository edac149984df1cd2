"""One utterance by eSpeak NG's C library, as a program of its own: a JSON request in, a line of JSON and samples out.

The library's noise and flutter go on from one utterance to the next, so that a process speaks the same sentence
differently every time. A fresh process makes speech depend on its text and voice alone. Nothing is imported but the
standard library, so that it starts within hundredths of a second.

    {"library", "data", "voice", "rate", "pitch", "range", "text"}  ->  {"rate_hz", "marks"} and int16 samples
"""

import ctypes
import json
import sys

# Numbers of espeak-ng/speak_lib.h.
_SYNCHRONOUS_OUTPUT = 2
_PHONEME_EVENTS_IN_IPA = 1 | 2
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
_UTF8 = 1
_SEED = 1


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def synthesise(request: dict) -> tuple[dict, bytes]:
    """The answer and its samples; {"error"} without samples where the library or the voice fails."""
    library = ctypes.CDLL(request["library"])
    samples, marks = bytearray(), []

    def receive(wave, count, events):
        if wave and count > 0:
            samples.extend(ctypes.string_at(wave, 2 * count))
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                marks.append((event.audio_position / 1000, event.id.string.decode("utf-8", "ignore")))
            index += 1
        return 0

    # The library looks for the folder `espeak-ng-data` inside the path it is given, or takes it as that folder.
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS_OUTPUT, 0, request["data"].encode(), _PHONEME_EVENTS_IN_IPA)
    if rate_hz <= 0:
        return {"error": "engine"}, b""
    library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # or it follows the clock
    callback = _Callback(receive)  # kept, or it would be freed under the library
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        return {"error": "voice"}, b""
    for name, number in _PARAMETERS.items():
        library.espeak_SetParameter(number, request[name], 0)
    text = request["text"].encode()
    library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return {"rate_hz": rate_hz, "marks": marks}, bytes(samples)


if __name__ == "__main__":
    answer, sound = synthesise(json.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + sound)
