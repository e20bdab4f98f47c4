"""Pictures are decoded within bounds."""

import time

from kit.data import pairing


def test_large_pictures_are_decoded_one_after_the_other():
    budget, inside, most = pairing.PixelBudget(100), [], []

    class File:
        pass

    import threading

    def decode(pixels):
        pairing.pixels_of = lambda file: pixels
        with budget.of(File):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    usual = pairing.pixels_of
    try:
        threads = [threading.Thread(target=decode, args=(80,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        pairing.pixels_of = usual
    assert max(most) == 1 and len(most) == 5
