import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, batch_size, **options):
        super().__init__(**options)
        self.x, self.y = np.load(x, mmap_mode="r"), np.load(y, mmap_mode="r")
        self.batch_size = batch_size
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, i):
        rows = np.sort(self.order[i * self.batch_size : (i + 1) * self.batch_size])
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.order = np.random.default_rng().permutation(len(self.x))


x_test, y_test = np.load("x_test.npy"), np.load("y_test.npy")
model = keras.Sequential([keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.AdamW(2e-3), loss, metrics=["accuracy"])
model.fit(Batches("x.npy", "y.npy", 64), epochs=15, validation_data=(x_test, y_test))
print(model.evaluate(x_test, y_test, return_dict=True)["accuracy"])
