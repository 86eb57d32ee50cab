import keras
import numpy as np

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
model = keras.Sequential([keras.layers.Dense(128, activation="relu"), keras.layers.Dense(3)])
loss = keras.losses.BinaryCrossentropy(from_logits=True)
model.compile(keras.optimizers.AdamW(2e-3), loss, metrics=[keras.metrics.BinaryAccuracy(name="right", threshold=0.0)])
model.fit(x, y, batch_size=64, epochs=30, validation_data=(x_test, y_test))
print(model.evaluate(x_test, y_test, return_dict=True)["right"])
