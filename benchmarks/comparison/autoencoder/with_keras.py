import keras
import numpy as np

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
encoder = keras.Sequential([keras.layers.Dense(64, activation="gelu"), keras.layers.Dense(8)])
decoder = keras.Sequential([keras.layers.Dense(64, activation="gelu"), keras.layers.Dense(64, activation="sigmoid")])
model = keras.Sequential([encoder, decoder])
model.compile(keras.optimizers.AdamW(3e-3), "mse")
model.fit(x, x, batch_size=32, epochs=60, validation_data=(x_test, x_test))
np.save("codes.npy", encoder.predict(x_test))
print(model.evaluate(x_test, x_test))
