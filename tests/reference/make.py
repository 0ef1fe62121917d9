"""Makes the reference tables beside this script with PyTorch, an implementation
that shares no code with Sinter.

    pip install torch==2.15.0 numpy safetensors
    python tests/reference/make.py
"""

import torch

import attention
import linalg
import nn
import ops
import recurrent
import surface

ops.make()
linalg.make()
torch.manual_seed(1)
surface.make()
nn.make()
torch.manual_seed(2)
recurrent.make()
torch.manual_seed(3)
attention.make()
