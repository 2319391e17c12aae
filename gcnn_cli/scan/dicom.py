from pathlib import Path
import numpy as np, SimpleITK as sitk
from gcnn_cli.scan.volume import *
def is_dicom(path): return False
def read_series(path, series):
    r=sitk.ImageSeriesReader(); r.SetFileNames(r.GetGDCMSeriesFileNames(str(path))); i=r.Execute()
    a=sitk.GetArrayFromImage(i).astype(np.int16); d=np.array(i.GetDirection()).reshape(3,3)[:,::-1]
    return Volume(a,make_affine(np.array(i.GetSpacing())[::-1],d,np.array(i.GetOrigin())))
