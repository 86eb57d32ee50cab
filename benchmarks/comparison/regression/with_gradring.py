import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
(x_mean, x_scale), (y_mean, y_scale) = ((array.mean(axis=0), array.std(axis=0)) for array in (x, y))
x, x_test = (x - x_mean) / x_scale, (x_test - x_mean) / x_scale
loader = gr.Loader((x, (y - y_mean) / y_scale), 64, shuffle=True)
model = gr.nn.Sequential(gr.nn.Linear(2, 64), gr.nn.Tanh(), gr.nn.Linear(64, 64), gr.nn.Tanh(), gr.nn.Linear(64, 1))
rate = gr.optim.schedule.cosine(5e-3, steps=60 * len(loader))
trainer = gr.Trainer(model, loss="mse", optimizer=gr.optim.AdamW(rate), metrics=["mae"])
trainer.fit(loader, epochs=60, validate=(x_test, (y_test - y_mean) / y_scale))
print(np.abs(trainer.predict(x_test) * y_scale + y_mean - y_test).mean())
