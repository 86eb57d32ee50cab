"""Train a small network on handwritten digits, straight from NumPy arrays.

python examples/train_digits.py
"""

import gradring as gr

train, test = gr.datasets.digits()

model = gr.nn.Sequential(gr.nn.Linear(64, 256), gr.nn.ReLU(), gr.nn.Linear(256, 10))
print(model.summary((32, 64)))

loader = gr.Loader(train, batch_size=32, shuffle=True)
rate = gr.optim.schedule.cosine(3e-3, steps=40 * len(loader))
trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(rate, weight_decay=1.0))
history = trainer.fit(loader, epochs=40, validate=test, callbacks=[gr.callbacks.EarlyStop("val_accuracy", patience=20)])

print(f"test accuracy {trainer.evaluate(test)['accuracy']:.1%}")
print(f"where the time went: {trainer.timings()}")
print("the first ten test digits are", test.y[:10], "and were read as", trainer.predict(test.x[:10]).argmax(axis=1))
