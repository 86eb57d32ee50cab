import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
model = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Dropout(0.2), gr.nn.Linear(128, 10))
trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(2e-3))
stop = gr.callbacks.EarlyStop("val_loss", patience=8, restore_best=True)
trainer.fit((x, y), epochs=40, validate=(x_test, y_test), callbacks=[stop])
print(trainer.evaluate((x_test, y_test))["accuracy"])
