import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
model = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10))
trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(2e-3))
last = gr.callbacks.Checkpoint("last.safetensors")
trainer.fit((x, y), epochs=15, validate=(x_test, y_test), callbacks=[last], resume="auto")
print(trainer.evaluate((x_test, y_test))["accuracy"])
