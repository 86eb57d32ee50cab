import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
crop = gr.transforms.RandomCrop(8, padding=1, layout="CHW")
loader = gr.Loader((x.reshape(-1, 1, 8, 8), y), 64, shuffle=True, transforms={0: crop})
model = gr.nn.Sequential(gr.nn.Flatten(), gr.nn.Linear(64, 256), gr.nn.ReLU(), gr.nn.Linear(256, 10))
trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(2e-3))
trainer.fit(loader, epochs=40, validate=(x_test.reshape(-1, 1, 8, 8), y_test))
print(trainer.evaluate((x_test.reshape(-1, 1, 8, 8), y_test))["accuracy"])
