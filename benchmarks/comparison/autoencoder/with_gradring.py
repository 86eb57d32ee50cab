import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
encoder = gr.nn.Sequential(gr.nn.Linear(64, 64), gr.nn.GELU(), gr.nn.Linear(64, 8))
decoder = gr.nn.Sequential(gr.nn.Linear(8, 64), gr.nn.GELU(), gr.nn.Linear(64, 64), gr.nn.Sigmoid())
trainer = gr.Trainer(gr.nn.Sequential(encoder, decoder), loss="mse", optimizer=gr.optim.AdamW(3e-3))
trainer.fit((x, x), epochs=60, batch_size=32, validate=(x_test, x_test))
np.save("codes.npy", encoder(x_test))
print(trainer.evaluate((x_test, x_test))["loss"])
