import numpy as np

import gradring as gr
from gradring.nn import GELU, Linear, RMSNorm, Sequential


class WideAndDeep(gr.nn.Layer):
    def __init__(self, inputs, hidden, outputs):
        deep = Sequential(Linear(inputs, hidden), GELU(), Linear(hidden, outputs))
        self.inside = {"norm": RMSNorm(inputs), "wide": Linear(inputs, outputs), "deep": deep}

    def children(self):
        return self.inside

    def trace(self, tracer, x):
        x = tracer.call("norm", self.inside["norm"], x)
        wide, deep = (tracer.call(name, self.inside[name], x) for name in ("wide", "deep"))
        return tracer.node("add", {"a": wide, "b": deep}, tracer.shape(wide))


x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
trainer = gr.Trainer(WideAndDeep(64, 64, 10), loss="cross_entropy", optimizer=gr.optim.AdamW(3e-3))
trainer.fit((x, y), epochs=15, validate=(x_test, y_test))
print(trainer.evaluate((x_test, y_test))["accuracy"])
