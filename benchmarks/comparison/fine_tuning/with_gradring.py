import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
old = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Linear(128, 5))
gr.Trainer(old, loss="cross_entropy", optimizer=gr.optim.AdamW(2e-3)).fit((x[y < 5], y[y < 5]), epochs=20)
old.save("old.safetensors")

body = gr.load("old.safetensors")
model = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10)).init(seed=1)
model.params["0.weight"], model.params["0.bias"] = body.params["0.weight"], body.params["0.bias"]
trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(1e-3))
trainer.fit((x[:500], y[:500]), epochs=30, batch_size=32, validate=(x_test, y_test))
print(trainer.evaluate((x_test, y_test))["accuracy"])
