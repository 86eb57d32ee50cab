import keras
import numpy as np

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
model = keras.Sequential(
    [keras.layers.Dense(128, activation="relu"), keras.layers.Dropout(0.2), keras.layers.Dense(10)]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.AdamW(2e-3), loss, metrics=["accuracy"])
stop = keras.callbacks.EarlyStopping("val_loss", patience=8, restore_best_weights=True)
model.fit(x, y, batch_size=64, epochs=40, validation_data=(x_test, y_test), callbacks=[stop])
print(model.evaluate(x_test, y_test, return_dict=True)["accuracy"])
