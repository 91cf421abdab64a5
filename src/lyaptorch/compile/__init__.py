"""What torch.compile sees in place of code that it cannot trace: operators of torch.library."""
