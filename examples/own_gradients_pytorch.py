"""Gradients of your own, from PyTorch: autograd differentiates, gradring updates the tensors where they lie.

pip install torch
python examples/own_gradients_pytorch.py
"""

import torch

import gradring as gr

torch.manual_seed(0)
train, test = gr.datasets.digits()
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))


def step(params, batch):
    """The loss and its gradients by name; params are the model's own tensors."""
    x, y = map(torch.from_numpy, batch)
    loss = torch.nn.functional.cross_entropy(model(x), y)
    grads = torch.autograd.grad(loss, list(params.values()))
    return loss.item(), dict(zip(params, grads, strict=True)), len(x)


trainer = gr.Trainer(step=step, params=dict(model.named_parameters()), optimizer=gr.optim.AdamW(3e-3))
history = trainer.fit(gr.Loader(train, batch_size=64, shuffle=True), epochs=30, validate=test)

accuracy = (model(torch.from_numpy(test.x)).argmax(dim=1).numpy() == test.y).mean()
print(f"loss {history.last['loss']:.3f}, validation loss {history.last['val_loss']:.3f}, test accuracy {accuracy:.1%}")
