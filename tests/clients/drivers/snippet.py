"""A program of the documentation, as it stands there but for the address."""

import runpy
import threading


def drive(address, options, tell):
    runpy.run_path(options["program"], run_name="__main__")
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
