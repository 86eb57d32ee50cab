import keras
import numpy as np

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
model = keras.Sequential([keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)])
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss_of, metrics=["accuracy"])
generator = np.random.default_rng(0)
for epoch in range(15):
    order = generator.permutation(len(x))
    for begin in range(0, len(x), 32):
        rows = order[begin : begin + 32]
        loss = model.train_on_batch(x[rows], y[rows])
    print(epoch, loss, model.evaluate(x_test, y_test))
print(model.evaluate(x_test, y_test, return_dict=True)["accuracy"])
