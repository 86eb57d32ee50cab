import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
model = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Linear(128, 3))
trainer = gr.Trainer(model, loss="binary_cross_entropy", optimizer=gr.optim.AdamW(2e-3))
trainer.fit((x, y), epochs=30, validate=(x_test, y_test))
print((trainer.predict_class(x_test) == y_test).mean())
