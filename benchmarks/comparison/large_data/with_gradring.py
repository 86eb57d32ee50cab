import numpy as np

import gradring as gr

x_test, y_test = np.load("x_test.npy"), np.load("y_test.npy")
loader = gr.Loader(("x.npy", "y.npy"), 64, shuffle=True)
model = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10))
trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(2e-3))
trainer.fit(loader, epochs=15, validate=(x_test, y_test))
print(trainer.evaluate((x_test, y_test))["accuracy"])
